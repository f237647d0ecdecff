import ast
import pathlib

from setuptools import setup

HERE = pathlib.Path(__file__).parent
ADDON = HERE / "bus_alt_connection"
MANIFEST = ast.literal_eval((ADDON / "__manifest__.py").read_text(encoding="utf-8"))

# every folder of Python files but the tests, which Odoo runs from a checkout
FOLDERS = sorted(file.parent.relative_to(HERE) for file in ADDON.rglob("__init__.py"))
PACKAGES = [".".join(["odoo.addons", *path.parts]) for path in FOLDERS if path.name != "tests"]

setup(
    # not odoo-addon-…: PyPI has another addon, OCA's, by that name, and pip would upgrade to it
    name="bus-alt-connection",
    version=MANIFEST["version"],
    description=MANIFEST["summary"],
    # README.rst links to other pages of the checkout, which PyPI has not
    long_description=(ADDON / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author=MANIFEST["author"],
    license="AGPL-3.0-or-later",
    license_files=["LICENSE"],
    keywords=["odoo", "pgbouncer", "postgresql", "listen", "notify", "bus"],
    classifiers=[
        "Environment :: Plugins",
        "Framework :: Odoo",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Database",
    ],
    python_requires=">=3.7",
    # odoo and odoo.addons have no __init__.py here: Odoo's own folders join them
    packages=PACKAGES,
    package_dir={"odoo.addons.bus_alt_connection": "bus_alt_connection"},
    package_data={
        "odoo.addons.bus_alt_connection": ["README.rst", "static/description/*", "readme/*"]
    },
)
