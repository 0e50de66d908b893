"""Run the notebooks of this folder and keep what they print and show: `make examples`.

Nothing of the machine stays in them: no progress bars, no times, no versions.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the outputs that it has now."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=300, coalesce_streams=True, resources={"metadata": {"path": folder}}).execute()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for each in cell.outputs:
                if "image/png" in each.get("data", {}):
                    each.data = {"image/png": each.data["image/png"]}
                each.pop("execution_count", None)
                if each.output_type == "execute_result":
                    each.output_type = "display_data"
            cell.execution_count = None
    return notebook


def main() -> None:
    for file in sorted(FOLDER.glob("*.ipynb")):
        print(file.name)
        nbformat.write(executed(nbformat.read(file, as_version=4)), file)


if __name__ == "__main__":
    main()
