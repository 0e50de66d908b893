"""Short videos of moving scenes, with questions about them."""

import json

from seeless.tiny import draw_scene

FRAMES = 10
CODECS = {"a.mp4": "mpeg4", "v_b.avi": "mjpeg", "c.mkv": "mpeg4", "d.mov": "mpeg4"}


def write_video(file, codec="mpeg4", seed=0):
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height = draw_scene(0).image.size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_image(draw_scene(seed + number).image)))
        container.mux(stream.encode())


def write_videos(folder, more=()):
    """Four videos in `folder/videos`, questions about them and about `more` names, and the flags to ask them."""
    (folder / "videos").mkdir()
    for number, (name, codec) in enumerate(CODECS.items()):
        write_video(folder / "videos" / name, codec, 100 * number)
    names = [name.removeprefix("v_").partition(".")[0] for name in CODECS] + list(more)
    questions = [
        {"video_name": name, "question_id": f"q{number}", "question": "how many digits are there?"}
        for number, name in enumerate(names)
    ]
    (folder / "q.json").write_text(json.dumps(questions))
    (folder / "a.json").write_text(json.dumps([{"answer": str(number)} for number in range(len(names))]))
    return ["--video-dir", "videos", "--gt-question", "q.json", "--gt-answers", "a.json", "--max-new-tokens", 3]
