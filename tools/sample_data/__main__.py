"""Write the files of `sqlquarry.data.sample` into the package."""

from pathlib import Path

from tools.sample_data.files import data_files

_PACKAGE = Path(__file__).parents[2] / "src/sqlquarry/data/sample"

for name, content in data_files().items():
    (_PACKAGE / name).write_text(content, encoding="utf-8", newline="\n")
