from __future__ import annotations

import pytest

from datakit.errors import QualityError, UsageError
from datakit.train import Trainer
from datakit.train.config import parse_config
from tests.train.conftest import changed


def test_a_mixture_that_touches_the_evaluation_is_refused(config_of, shards, tmp_path):
    config = config_of(leaks__against=[str(shards["train"])])
    with pytest.raises(QualityError, match="leaks.allow") as caught:
        next(Trainer(config, tmp_path / "run").steps())
    assert "world/" in str(caught.value.found)
    assert not (tmp_path / "run").exists()  # refused before anything is claimed


def test_allowed_leaks_are_said(config_of, shards, tmp_path):
    config = config_of(leaks__against=[str(shards["train"])], leaks__allow=True)
    said: list[str] = []
    next(Trainer(config, tmp_path / "run", say=said.append).steps())
    assert any("leaks.allow" in line and "world/" in line for line in said)


def test_other_scenes_and_lists_pass(config_of, shards, tmp_path):
    config = config_of(leaks__against=[str(shards["held-out"]), "sintel", "scannet:test"])
    next(Trainer(config, tmp_path / "run").steps())


def test_the_choice_does_not_change_the_run(config_of):
    assert config_of(leaks__against=["sintel"]).identity() == config_of().identity()


def test_unknown_keys_are_named(raw_config):
    with pytest.raises(UsageError, match="against"):
        parse_config(changed(raw_config) | {"leaks": {"agianst": []}})
