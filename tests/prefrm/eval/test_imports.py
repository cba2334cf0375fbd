import subprocess
import sys

CODE = """
import sys
import prefrm.eval, prefrm.heatmap, prefrm.label, prefrm.plots, prefrm.scoring
heavy = {"torch", "transformers", "matplotlib", "pyarrow", "scipy", "datasets", "prefrm.engine"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_looking_at_scorers_imports_no_engine_and_nothing_heavy():
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)
