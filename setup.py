"""The one thing that pyproject.toml cannot say: found packages, and `schemas/` under the name it is imported by."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["datakit*", "converters*"]), "datakit.schema.tables"],
    package_dir={"datakit.schema.tables": "schemas"},
)
