from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from datakit.d4rt import find_config
from datakit.errors import LayoutError, UsageError
from datakit.train.config import BUNDLED, EXECUTION, TrainConfig, load_config, parse_config


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda path: path.stem)
def test_bundled_configurations_are_whole_and_read_back(path):
    config = load_config(path.stem)
    assert config.model.encoder_width == find_config(path.stem).encoder_width
    again = parse_config(yaml.safe_load(yaml.safe_dump(config.to_dict())))
    assert again == config and again.identity() == config.identity()


def test_defaults_are_the_papers(raw_config):
    config = TrainConfig(model=find_config("paper"), data={"shards": ["x"]})
    assert (config.data.batch_size, config.data.queries, config.clip_frames) == (64, 2048, 48)
    optim = config.optim
    assert (optim.steps, optim.warmup_steps, optim.lr, optim.final_lr) == (500_000, 2500, 1e-4, 1e-6)
    assert (optim.weight_decay, optim.grad_clip) == (0.03, 10.0)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("optim.learning_rat", None),
        ("optim.warmup", "warmup_steps"),
        ("optimm.lr", "optim"),
        ("model.encoder_with", "encoder_width"),
        ("loss.visble", "visible"),
        ("data.augment.max_strid", "max_stride"),
        ("data.shard", "shards"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(name, near):
    with pytest.raises(UsageError, match="Unknown key") as error:
        load_config("tiny", ["data.augment={}", f"{name}=1"])
    assert name.removesuffix(".lr") in str(error.value)
    assert near is None or f"did you mean '{near}'?" in str(error.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.lr=fast", "optim.lr"),
        ("optim.lr=-1", "greater than 0"),
        ("optim.steps=10", "warm-up"),
        ("data.shards=[]", "data.shards"),
        ("data.clip_frames=9", "time tables"),
        ("model.name=huge", "huge"),
        ("model.encoder_heads=3", "multiple"),
        ("execution.precision=fp8", "fp32"),
        ("data.augment={crop_area: [0.5, 2.0]}", "crop_area"),
        ("data.augment={crop_area: 5}", "crop_area"),
        ("data.augment={max_stride: x}", "max_stride"),
        ("optim", "override"),
        ("optim.lr.x=1", "goes into a value"),
        ("optim.lr=[", "cannot be read"),
    ],
)
def test_values_that_do_not_fit_are_named(override, says):
    with pytest.raises(UsageError, match=says):
        load_config("tiny", [override])


def test_overrides_are_yaml():
    config = load_config(
        "tiny", ["optim.lr=3e-4", "data.shards=[a, b]", "model.name=small", "data.augment={max_stride: 2}"]
    )
    assert config.optim.lr == 3e-4 and config.data.shards == ["a", "b"]
    assert config.model.encoder_width == 384 and config.data.augment_params().max_stride == 2
    assert load_config("tiny", ["model.decoder_depth=5"]).model.decoder_depth == 5


def test_a_configuration_on_top_of_another_one(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text("other: 1\ntrain: {base: tiny, model: {decoder_depth: 5}, optim: {steps: 77}}\n")
    config, tiny = load_config(path, section="train"), load_config("tiny")
    assert (config.optim.steps, config.model.decoder_depth) == (77, 5)
    assert config.optim.lr == tiny.optim.lr and config.model.encoder_width == tiny.model.encoder_width
    assert config.data == tiny.data
    with pytest.raises(UsageError, match="absent"):
        load_config(path, section="absent")
    path.write_text(f"base: {path}\n")
    with pytest.raises(UsageError, match="its own base"):
        load_config(path)


def test_a_missing_or_broken_file(tmp_path: Path):
    with pytest.raises(LayoutError, match="base, paper, small, tiny"):
        load_config("nothing")
    for text in ("a: [", "- 1", "\x00"):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(UsageError, match="c.yaml"):
            load_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("model: tiny\n")
    with pytest.raises(UsageError, match="missing"):
        load_config(tmp_path / "c.yaml")


def test_what_changes_the_result_is_the_identity(config_of):
    ours = config_of().identity()
    for name, value in {
        "data__workers": 2,
        "data__shards": ["elsewhere"],
        "execution__threads": 2,
        "execution__accumulate": 2,
        "validation__every": 3,
        "checkpoint__every": 7,
        "log__every": 9,
    }.items():
        assert config_of(**{name: value}).identity() == ours, name
    for name, value in {
        "data__seed": 9,
        "data__queries": 25,
        "model__decoder_depth": 1,
        "loss__reduction": "queries",
        "optim__lr": 1e-3,
        "execution__precision": "bf16",
    }.items():
        assert config_of(**{name: value}).identity() != ours, name
    assert set(EXECUTION) < set(TrainConfig.model_fields)


def test_without_torch_the_extra_is_named(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from datakit.cli import main; sys.exit(main(['train', 'tiny', '--show-config']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "datakit[train]" in done.stderr and "Traceback" not in done.stderr
