"""What pyproject.toml cannot say: `mappings/` of the repository is `engine/mappings/` in a wheel, as data."""

from setuptools import find_namespace_packages, find_packages, setup

MAPPINGS = ["engine.mappings", *(f"engine.mappings.{folder}" for folder in find_namespace_packages("mappings"))]

setup(
    packages=[*find_packages(include=["engine", "engine.*"]), *MAPPINGS],
    package_dir={"engine.mappings": "mappings"},
    package_data={"engine": ["**/*.json", "**/*.yaml"], "engine.mappings": ["**/*"]},
)
