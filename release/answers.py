"""Print twelve greedy tokens for each of four scenes as JSON, for the untouched model and for three kinds of cuts."""

import json
from contextlib import nullcontext

import seeless as sl
from seeless.tiny import draw_scene, load_tiny

STRATEGIES = {
    "none": None,
    "fastv": sl.FastV(keep=0.25),
    "fastervlm": sl.FasterVLM(keep=0.25),
    "pyramiddrop": sl.PyramidDrop(),
}
QUESTION = [{"type": "image"}, {"type": "text", "text": "how many digits are there?"}]


def answer(model, processor, strategy, scene):
    prompt = processor.apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    inputs = processor(images=scene.image, text=prompt, return_tensors="pt")
    with sl.apply(model, strategy) if strategy else nullcontext():
        ids = model.generate(**inputs, min_new_tokens=12, max_new_tokens=12, do_sample=False)
    return ids[0, -12:].tolist()


if __name__ == "__main__":
    model, processor = load_tiny()
    scenes = [draw_scene(seed=seed) for seed in range(4)]
    found = {name: [answer(model, processor, each, scene) for scene in scenes] for name, each in STRATEGIES.items()}
    print(json.dumps(found))
