"""A small task folder for lmms-eval: scenes of the embedded model's world with a picture, several, or none."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seeless.tiny import draw_scene

DOC_FUNCTIONS = """
def visuals(doc):
    from PIL import Image
    import io
    if doc.get("video"):
        return [doc["video"]]
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in doc["pictures"]]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def score(doc, results):
    return {"exact": float(results[0] == doc["answer"])}


def mean(values):
    return sum(values) / len(values)
"""
SHARED = """
dataset_path: parquet
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
doc_to_visual: !function small_docs.visuals
doc_to_text: !function small_docs.text
"""
WRITTEN = """
task: NAME
tag: small
output_type: generate_until
doc_to_target: answer
generation_kwargs: {max_new_tokens: 6, until: ["\\n"], temperature: 0, do_sample: false, image_aspect_ratio: original}
process_results: !function small_docs.score
metric_list: [{metric: exact, aggregation: !function small_docs.mean, higher_is_better: true}]
"""
CHOSEN = """
task: NAME
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
CHOICES = ["red", "blue", "3", "there are 4 digits"]


def png(seed: int, size: tuple[int, int] | None = None) -> bytes:
    image = draw_scene(seed).image
    buffer = io.BytesIO()
    (image if size is None else image.resize(size)).save(buffer, "PNG")
    return buffer.getvalue()


def documents() -> list[dict]:
    """Seven documents: one picture, pictures of other sizes, two pictures with and without marks, none."""
    docs = []
    for seed in range(4):
        question = draw_scene(seed).questions[seed % 3]
        docs.append({"pictures": [png(seed)], "question": question.text, "answer": question.answer})
    wide = {"pictures": [png(4, (150, 70))], "question": "how many digits are there?", "answer": "3"}
    marked = {"pictures": [png(5), png(6)], "question": "one <image> and <image> how many digits?", "answer": "3"}
    return [*docs, wide, marked, {"pictures": [], "question": "how many digits?", "answer": "3"}]


def write_video(file: Path, frames: int = 12, size: int = 112) -> Path:
    """A video file: scenes one after the other, three frames each."""
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            image = draw_scene(number // 3).image.resize((size, size))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return file


def write_tasks(folder: Path, docs: list[dict] | None = None, prefix: str = "small") -> Path:
    """The tasks `{prefix}_written` and `{prefix}_chosen` over the same documents."""
    folder.mkdir(parents=True, exist_ok=True)
    docs = documents() if docs is None else docs
    label = [CHOICES.index("red") if doc["answer"] == "red" else 2 for doc in docs]
    rows = [{**doc, "choices": CHOICES, "label": which} for doc, which in zip(docs, label, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{prefix}.parquet")
    (folder / "small_docs.py").write_text(DOC_FUNCTIONS)
    shared = SHARED.replace("FILE", f"{prefix}.parquet")
    for kind, text in (("written", WRITTEN), ("chosen", CHOSEN)):
        (folder / f"{prefix}_{kind}.yaml").write_text(text.replace("NAME", f"{prefix}_{kind}") + shared)
    return folder
