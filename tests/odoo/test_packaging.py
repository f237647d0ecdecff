"""The wheel, installed beside a real Odoo, is found without --addons-path."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ..stack.odoo import CHECKOUT
from ..stack.process import CACHE
from .conftest import Site

pytestmark = pytest.mark.slow


# the OCA addon with the same folder: its distribution on PyPI
OTHER, OTHERS_VERSION = "odoo-addon-bus-alt-connection", "19.0.1.0.0.2"
ADDON = "odoo/addons/bus_alt_connection/"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with sdist and wheel, built from the files that git would ship."""
    source = tmp_path_factory.mktemp("source")
    files = ["setup.py", "README.rst", "LICENSE", "bus_alt_connection"]
    subprocess.run(["cp", "-r", *files, source], cwd=CHECKOUT, check=True)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, source)
    return out


def run(*argv, **options):
    environ = {**os.environ, "PIP_CACHE_DIR": str(CACHE / "pip"), "PYTHONWARNINGS": "ignore"}
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(arg) for arg in argv],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_sdist_and_wheel(built):
    (wheel,) = built.glob("bus_alt_connection-*.whl")
    (_sdist,) = built.glob("bus_alt_connection-*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert ADDON + "__manifest__.py" in names
    assert ADDON + "integration/odoo_functions.py" in names
    assert ADDON + "cli/buscheck.py" in names
    assert any(name.endswith("LICENSE") for name in names)
    outside = [n for n in names if not n.startswith(ADDON) and ".dist-info/" not in n]
    assert outside == [], "odoo and odoo.addons belong to Odoo"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="releases are built with a later Python")
def test_pypi_would_take_it(built):
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


@pytest.fixture
def others(tmp_path):
    """A folder with a wheel that has the name and the folder of the OCA addon."""
    folder = tmp_path / "others"
    folder.mkdir()
    stem = f"{OTHER.replace('-', '_')}-{OTHERS_VERSION}"
    files = {
        ADDON + "__init__.py": "OTHER = True\n",
        f"{stem}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {OTHER}\nVersion: {OTHERS_VERSION}\n"
        ),
        f"{stem}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = f"{stem}.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in [*files, record])
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return folder


@pytest.fixture
def environment(tmp_path):
    """A virtual environment: its pip, and the addon's folder in it."""
    python = tmp_path / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", python.parents[1])
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    return (sys.executable, "-m", "pip", "--python", python), Path(packages.strip()) / ADDON


def is_ours(addon: Path) -> bool:
    """Tell whether the addon in this folder is whole."""
    kept = (CHECKOUT / "bus_alt_connection" / "__init__.py").read_text()
    found = addon / "__init__.py"
    return (
        found.exists()
        and found.read_text() == kept
        and (addon / "integration" / "odoo_functions.py").exists()
    )


def test_an_upgrade_does_not_bring_another_addon(built, others, environment):
    pip, addon = environment
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (metadata,) = (name for name in files.namelist() if name.endswith("METADATA"))
        name = re.search(r"^Name: (.+)$", files.read(metadata).decode(), re.M)[1]
    run(*pip, "install", "--no-index", wheel)
    run(*pip, "install", "--upgrade", "--no-index", f"--find-links={others}", name)
    assert is_ours(addon)


def test_what_readme_says_of_the_other_wheel(built, others, environment):
    pip, addon = environment
    (ours,), (theirs,) = built.glob("*.whl"), others.glob("*.whl")
    for wheel in (ours, theirs):
        run(*pip, "install", "--no-index", wheel)
    run(*pip, "check")
    assert not is_ours(addon), "pip sees the conflict now: README says that it does not"
    run(*pip, "uninstall", "--yes", OTHER)
    run(*pip, "install", "--no-index", "--force-reinstall", "--no-deps", ours)
    assert is_ours(addon)


def test_the_wheel_works_without_addons_path(deployment, built, tmp_path):
    (wheel,) = built.glob("*.whl")
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # Odoo and what it needs, as installed for the tests
    ours = run(sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    with open(f"{packages}/odoo.pth", "w") as paths:
        paths.write(ours.strip() + "\n" + os.environ["BUS_ALT_ODOO_PATH"] + "\n")
    find = "import importlib.util as u; print(u.find_spec('odoo.addons.bus_alt_connection'))"
    assert run(python, "-c", find).strip() == "None"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "-q", "--no-deps", "--no-index", wheel)
    with deployment.odoo(
        options=deployment.direct_settings, addons_path=os.environ["BUS_ALT_ADDONS"], start=False
    ) as odoo:
        odoo.python = python
        del odoo.environ["PYTHONPATH"]
        odoo.start()
        site = Site(deployment, odoo)
        assert site.deliver() == 100
        site.close()
        assert "listening at" in odoo.log()
        done = odoo.buscheck(rc=True)
        assert done.returncode == 0, done.stdout + done.stderr
