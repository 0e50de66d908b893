"""A package called lmms_eval that notes how it was started and writes results, or fails, as it is told.

How: the model argument `do`, given by --extra.
"""

PACKAGE = """
import json, os, pathlib, sys

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
given = dict(part.split("=", 1) for part in arguments["--model_args"].split(","))
folder = pathlib.Path(arguments["--output_path"]) / "model"
folder.mkdir(parents=True, exist_ok=True)
(folder / "started.json").write_text(json.dumps({"argv": sys.argv[1:], "environment": dict(os.environ)}))
if given.get("do") == "die":
    print("ValueError: nothing works")
    sys.exit(9)
if given.get("do") == "swallow":
    print("Error during evaluation: layer 99 is outside. Please set `--verbosity=DEBUG` to get more information.")
    sys.exit(0)
tasks = arguments["--tasks"].split(",")
names = ("visual_tokens", "flops_share", "prefill_seconds")
figures = {f"avg_{task}/{name}" if len(tasks) > 1 else f"avg_{name}": 0.25 for name in names for task in tasks}
results = {
    "results": {task: {"alias": task, "acc,none": 0.5} for task in tasks},
    "configs": {task: {} for task in tasks},
    "n-samples": {task: {"original": 3, "effective": 3} for task in tasks},
    "group_subtasks": {},
    "throughput": figures,
}
for task in tasks:
    lines = [json.dumps({"doc_id": number}) for number in range(1 if given.get("do") == "hurry" else 3)]
    (folder / f"1_samples_{task}.jsonl").write_text("\\n".join(lines))
(folder / "1_results.json").write_text(json.dumps(results))
print("all done")
"""
TASKS = {
    "mme": "task: mme\noutput_type: generate_until\n",
    "pope": "task: pope\noutput_type: generate_until\n",
    "choose": "task: choose\noutput_type: multiple_choice\n",
    "group": "group: both\ntask: [pope, choose]\n",
}


def write_stub(folder):
    """Put the package in a folder."""
    (folder / "lmms_eval/tasks").mkdir(parents=True)
    (folder / "lmms_eval/__init__.py").touch()
    (folder / "lmms_eval/__main__.py").write_text(PACKAGE)
    for name, text in TASKS.items():
        (folder / f"lmms_eval/tasks/{name}.yaml").write_text(text)
    return folder
