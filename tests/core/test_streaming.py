"""Answers that are streamed from a thread while a handle is on, and after it has been taken off."""

import queue
import threading

import pytest
from transformers import TextIteratorStreamer

import seeless as sl
from seeless.errors import InputError
from seeless.tiny import draw_scene, load_tiny


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_block_left_while_a_thread_streams_is_an_error_there(monkeypatch):
    model, processor = load_tiny()
    content = [{"type": "image"}, {"type": "text", "text": "how many digits are there?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=draw_scene(3).image, text=prompt, return_tensors="pt")
    raised, started, left = [], threading.Event(), threading.Event()
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=0.2)
    put = streamer.put

    def put_and_wait(tokens):
        put(tokens)
        if not started.is_set() and tokens.numel() == 1:  # the prompt comes first, whole
            started.set()
            left.wait(60)

    streamer.put = put_and_wait

    def generate():
        try:
            model.generate(**inputs, streamer=streamer, max_new_tokens=8, min_new_tokens=8)
        except InputError as error:
            raised.append(str(error))

    with sl.apply(model, "fastv", keep=0.25):
        thread = threading.Thread(target=generate)
        thread.start()
        assert started.wait(60)
    left.set()
    thread.join(60)
    assert len(raised) == 1 and "handle has been removed" in raised[0]
    with pytest.raises(queue.Empty):  # what docs/handles.md says of a reader with a timeout
        list(streamer)
