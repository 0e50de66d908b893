"""Questions about videos for `seeless eval`: ask them one by one, keep the answers, count the right ones."""

import os
from dataclasses import dataclass
from pathlib import Path

import seeless as sl
from seeless.asking.inputs import check_video_processor, uncut_frames
from seeless.cli.console import notice, print_json, print_table, say
from seeless.cli.evaluating import Run, check_model
from seeless.errors import brief, one_line, shortened
from seeless.eval.errors import FailedEvaluation, InvalidRequest
from seeless.eval.reductions import INTERNVL_ONLY, LOADING, Reduction
from seeless.eval.targets import Target
from seeless.eval.video_qa import (
    Predictions,
    Score,
    VideoQuestion,
    chunk,
    find_video,
    fingerprint,
    read_predictions,
    read_questions,
    score,
)
from seeless.jsonl import encode
from seeless.named.checkpoints import LoadedModel, load_embedded, load_model
from seeless.outputs import claimed, replace_file


@dataclass(frozen=True)
class VideoRun:
    """Which questions are asked, and how; see the flags of the same names."""

    videos: Path
    questions: Path
    answers: Path
    samples: int | None
    frames: int
    max_new_tokens: int
    chunks: int
    chunk: int

    def file(self, folder: Path, index: int) -> Path:
        """Where the predictions of a chunk are."""
        return folder / ("predictions.jsonl" if self.chunks == 1 else f"predictions_{index}_of_{self.chunks}.jsonl")


def run_videos(run: Run, video_run: VideoRun) -> None:
    """Ask all questions that have no answer yet, and print how many are right.

    Raises:
        InvalidRequest: before anything is loaded.
        FailedEvaluation: some questions could not be asked; the others were.
    """
    found, reduction = run.chosen()
    run.check_gpus()
    if run.processes > 1:
        raise InvalidRequest(
            f"--num-processes {run.processes}: questions about videos are shared out by starting one command per GPU, "
            "each with --gpus N, --num-chunks and its --chunk-idx"
        )
    if unused := [name for name in (*LOADING, *INTERNVL_ONLY) if name in reduction.arguments]:
        raise InvalidRequest(
            f"--param {unused[0]} is for tasks of lmms-eval; for videos there are the flags of this command"
        )
    if not os.path.isdir(video_run.videos):
        raise InvalidRequest(f"--video-dir {brief(video_run.videos)} is no folder")
    everything = read_questions(video_run.questions, video_run.answers)[: video_run.samples]
    questions = chunk(everything, video_run.chunks, video_run.chunk)
    for line in reduction.notices:
        notice(line)
    folder = run.folder(found, reduction, video_run.questions.stem)
    if run.dry_run:
        _describe(folder, video_run, questions)
        return
    if run.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = run.gpus  # nothing has asked for a GPU yet
    check_video_processor(check_model(found, reduction, run.loading))
    settings = _settings(found, reduction, run, video_run, len(everything))
    with claimed(video_run.file(folder, video_run.chunk)):
        _run(run, video_run, found, reduction, settings, everything, questions, folder)


def _run(
    run: Run,
    video_run: VideoRun,
    found: Target,
    reduction: Reduction,
    settings: dict,
    everything: list[VideoQuestion],
    questions: list[VideoQuestion],
    folder: Path,
) -> None:
    """Ask those of the questions that have no answer yet, while this process holds the file."""
    predictions = Predictions(video_run.file(folder, video_run.chunk), settings)
    if predictions.broken:
        notice(f"the last line of {predictions.file} was cut off; its question is asked again")
    left = [question for question in questions if question.id not in predictions.found]
    if len(left) < len(questions):
        notice(f"{len(questions) - len(left)} of {len(questions)} questions are answered already in {predictions.file}")
    if left:
        loaded = load_embedded(found.pretrained) if found.embedded else load_model(found.pretrained, **run.loading)
        try:
            _ask(loaded, reduction, video_run, left, predictions)
        except KeyboardInterrupt:
            notice(f"stopped; the answers are in {predictions.file}, and the same command goes on from there")
            raise SystemExit(130) from None
    scores = {"all" if video_run.chunks == 1 else f"chunk {video_run.chunk}": score(questions, predictions.found)}
    if video_run.chunks > 1:
        scores["chunks so far"] = score(everything, _found_in_all(video_run, folder))
    counted = {name: each.to_dict() for name, each in scores.items()}
    replace_file(predictions.file.with_suffix(".scores.json"), encode(counted, indent=2) + b"\n")
    if run.as_json:
        print_json(
            {
                "model": found.pretrained,
                "arguments": reduction.arguments,
                "predictions": str(predictions.file),
                "errors": str(predictions.errors) if predictions.failed else None,
                "scores": counted,
            }
        )
    else:
        _print(scores, predictions)
    if predictions.failed:
        names = ", ".join(dict.fromkeys(shortened(line["video"], 60) for line in predictions.failed[:5]))
        raise FailedEvaluation(
            f"{len(predictions.failed)} of {len(questions)} questions have no answer, their videos are missing, "
            f"broken or refused ({names}{', ...' if len(predictions.failed) > 5 else ''}); why: {predictions.errors}"
        )


def _settings(found: Target, reduction: Reduction, run: Run, video_run: VideoRun, count: int) -> dict:
    """What the answers depend on; the number of questions only if it says where chunks end."""
    return {
        "model": found.pretrained,
        "model_id": reduction.model_id,
        "arguments": reduction.arguments,
        "plugins": {str(file): fingerprint(file) for file in run.plugins},
        "video_dir": str(video_run.videos.resolve()),
        "questions": fingerprint(video_run.questions),
        "answers": fingerprint(video_run.answers),
        "frames": video_run.frames,
        "max_new_tokens": video_run.max_new_tokens,
        "chunk": None if video_run.chunks == 1 else [video_run.chunk, video_run.chunks, count],
    }


def _ask(
    loaded: LoadedModel,
    reduction: Reduction,
    video_run: VideoRun,
    questions: list[VideoQuestion],
    predictions: Predictions,
) -> None:
    from seeless.integrations.answering import Answerer
    from seeless.integrations.batches import UnusablePrompts
    from seeless.integrations.prompts import Prompt
    from seeless.pixels import read_video

    whole = uncut_frames(loaded)
    answerer = Answerer(loaded.model, loaded.processor, reduction.strategy, images=whole)
    for number, question in enumerate(questions, 1):
        try:
            video = read_video(find_video(video_run.videos, question.video), video_run.frames)
        except sl.InputError as error:
            predictions.add_error(question, one_line(error))
            notice(f"[{number}/{len(questions)}] {one_line(error)}")
            continue
        parts = [{"type": "video", "video": video}, {"type": "text", "text": question.question}]
        prompt = Prompt([{"role": "user", "content": parts}])
        try:
            (answer,) = answerer.answer([prompt], max_new_tokens=video_run.max_new_tokens)
        except UnusablePrompts as error:
            predictions.add_error(question, one_line(error))
            notice(f"[{number}/{len(questions)}] {question.id}: {one_line(error)}")
            continue
        predictions.add(question, answer.text.strip())
        notice(f"[{number}/{len(questions)}] {question.id}: {answer.text.strip()}")


def _found_in_all(video_run: VideoRun, folder: Path) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for index in range(video_run.chunks):
        found |= read_predictions(video_run.file(folder, index))
    return found


def _describe(folder: Path, video_run: VideoRun, questions: list[VideoQuestion]) -> None:
    missing = []
    for name in dict.fromkeys(question.video for question in questions):
        try:
            find_video(video_run.videos, name)
        except sl.InputError:
            missing.append(name)
    say(f"would ask {len(questions)} questions and write {video_run.file(folder, video_run.chunk)}")
    say(f"videos that are missing: {', '.join(missing)}" if missing else "all videos are there")


def _print(scores: dict[str, Score], predictions: Predictions) -> None:
    lines = []
    for name, each in scores.items():
        shares = [each.exact, each.normalised]
        cells = [f"{100 * right / each.answered:.1f} %" if each.answered else "-" for right in shares]
        lines.append([name, *cells, f"{each.answered} of {each.questions}"])
    print_table(["questions", "exact match", "normalised match", "answered"], lines)
    say(f"\npredictions: {predictions.file}" + (f"\nerrors:      {predictions.errors}" if predictions.failed else ""))
