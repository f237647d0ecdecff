"""The wheel, installed beside a real Odoo, is found without --addons-path."""

import os
import subprocess
import sys
import zipfile

import pytest

from ..stack.odoo import CHECKOUT
from ..stack.process import CACHE
from .conftest import Site

pytestmark = pytest.mark.slow


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
    (wheel,) = built.glob("odoo_addon_bus_alt_connection-*.whl")
    (_sdist,) = built.glob("odoo_addon_bus_alt_connection-*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    addon = "odoo/addons/bus_alt_connection/"
    assert addon + "__manifest__.py" in names
    assert addon + "seams.py" in names
    assert addon + "cli/buscheck.py" in names
    assert any(name.endswith("LICENSE") for name in names)
    outside = [n for n in names if not n.startswith(addon) and ".dist-info/" not in n]
    assert outside == [], "odoo and odoo.addons belong to Odoo"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="releases are built with a later Python")
def test_pypi_would_take_it(built):
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


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
        options=deployment.direct, addons_path=os.environ["BUS_ALT_ADDONS"], start=False
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
