import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from prefrm.cli import run
from prefrm.cli.environment import required_packages


def test_versions_devices_and_variables_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("https_proxy", "http://me:password@proxy")
    assert run(["env"]) == 0
    text = capsys.readouterr().out
    assert run(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)

    assert facts["prefrm"] == version("prefrm")
    assert facts["torch"]["version"] == torch.__version__
    assert len(facts["torch"]["devices"]) == torch.accelerator.device_count()
    assert facts["cpus"] >= 1 and facts["memory_bytes"] > 2**28
    assert facts["packages"]["core"]["numpy"] == version("numpy")
    assert facts["packages"]["judge"]["transformers"] == version("transformers")
    assert "dev" not in facts["packages"]
    found = facts["environment"]
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["HF_TOKEN"] == found["https_proxy"] == "(set)"
    for secret in ("hf_abcdef", "password"):
        assert secret not in text + json.dumps(facts)
    for shown in (version("numpy"), torch.__version__, "HF_TOKEN=(set)"):
        assert shown in text


def test_packages_by_the_extra_that_adds_them() -> None:
    requirements = [
        "numpy>=1.26",
        "tritonclient[grpc,http]>=2.60",
        "prefrm[data]; extra == 'judge'",
        'torch>=2.9; extra == "judge"',
        'uvloop>=0.21; sys_platform != "win32" and extra == "serve"',
        'prefrm[judge]; extra == "all"',
    ]
    assert required_packages(requirements) == {
        "core": ["numpy", "tritonclient"],
        "judge": ["torch"],
        "serve": ["uvloop"],
    }


def test_a_torch_that_cannot_be_imported_is_named_and_nothing_else_is_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from prefrm.cli import run; assert run(['env']) == 0; "
        "heavy = {'transformers', 'peft', 'datasets', 'pyarrow', 'matplotlib', 'scipy', 'fastapi', 'av'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "which fails: ModuleNotFoundError" in done.stdout
