"""Guests of `seeless.vtr` on the command line: names, flags, refusals, and what is printed."""

import json

import pytest
import torch
from saved_models import save_llava, save_llava_next

import seeless as sl
from seeless import models
from seeless.named.strategies import choose, guest_names
from seeless.tiny import draw_scene, load_tiny
from seeless.vtr import VTR_REGISTRY, VTRConfig, register_strategy

QUICK = ("--repeats", 0, "--max-new-tokens", 2)


def run_json(seeless, *arguments) -> dict:
    outcome = seeless("run", "--model", "tiny", *QUICK, "--json", *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return json.loads(outcome.out)


def refused(outcome, code: int, *parts: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


def kept(row: dict) -> list[list[int]]:
    return [stage["kept"][0] for stage in row["report"]["stages"]]


@pytest.mark.parametrize("dash", ["_", "-"])
def test_a_guest_and_its_own_field(seeless, guest, dash):
    flags = ["--my_temperature", 0.7, "--keep_tokens", 64, "--prune_layer", 3]
    flags = [flag.replace("_", dash) if isinstance(flag, str) else flag for flag in flags]
    before, after = run_json(seeless, "--plugin", guest, "--strategy", "myguest", *flags)["runs"]
    assert (before["strategy"], before["fields"], before["visual_tokens"]) == ("none", None, 144)
    assert (after["strategy"], after["visual_tokens"], after["average_tokens"]) == ("myguest", 64, 94)
    fields = after["fields"]
    assert (fields["strategy"], fields["keep_tokens"], fields["prune_layer"]) == ("myguest", 64, 3)
    assert (fields["my_temperature"], fields["keep_ratio"]) == (0.7, None)
    config = choose("myguest").flags_of.from_dict(fields)
    assert (type(config).__name__, config.to_dict()) == ("MyConfig", fields)


def test_it_is_what_python_gives(seeless, guest):
    """The command line, `sl.apply` with the configuration, and the native method agree on what stays."""
    row = run_json(seeless, "--plugin", guest, "--strategy", "myguest", "--keep-tokens", 9, "--prune-layer", 2)["runs"][
        1
    ]
    model, processor = load_tiny()
    scene = draw_scene(0)
    content = [{"type": "image"}, {"type": "text", "text": scene.questions[0].text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=scene.image, text=prompt, return_tensors="pt")
    for strategy in (
        VTRConfig(strategy="fastv", query_aggregation="last", keep_tokens=9, prune_layer=2),
        sl.FastV(keep=9, layer=2),
    ):
        with sl.apply(model, strategy) as run:
            model.generate(**inputs, max_new_tokens=1)
        assert run.report.stages[0].kept[0].tolist() == kept(row)[0]


def test_the_framework_s_version_of_a_native_name(seeless):
    data = run_json(seeless, "--strategy", "vtr:priortr", "--keep_tokens", 72, "--prune_layer", 3)
    row = data["runs"][1]
    assert (row["strategy"], row["fields"]["strategy"], row["visual_tokens"]) == ("vtr:priortr", "priortr", 72)
    assert row["report"]["stages"][0]["layer"] == 3
    native = run_json(seeless, "--strategy", "priortr", "--keep", 72)["runs"][1]
    assert "prune_layer" not in native["fields"]
    assert "keep_tokens" not in native["fields"]


def test_without_flags_a_guest_has_the_defaults_of_its_framework(seeless):
    row = run_json(seeless, "--strategy", "vtr:fastv")["runs"][1]
    assert (row["visual_tokens"], row["report"]["stages"][0]["layer"]) == (144, 3)  # 192 tokens on LLaVA: all of them


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--prune_layer", "2, 5", "--keep_tokens", "72,18"], {"prune_layer": [2, 5], "keep_tokens": [72, 18]}),
        (["--keep_ratio", "0.25"], {"keep_ratio": 0.25}),
        (["--keep-ratio=.5,.25", "--prune-layer=2,5"], {"keep_ratio": [0.5, 0.25]}),
        (["--score-threshold", "1e-3"], {"score_threshold": 0.001}),
        (["--ref-layers", "1"], {"ref_layers": [1]}),
        (["--ref-layers", "none"], {"ref_layers": None}),
        (["--query-aggregation", "question", "--head_aggregation", "max"], {"query_aggregation": "question"}),
        (["--video-pruning-mode", "none"], {"video_pruning_mode": "none"}),
        (["--loud"], {"loud": True}),
        (["--no-loud"], {"loud": False}),
        (["--loud", "True"], {"loud": True}),
        (["--myguest.loud", "--no_loud"], {"loud": True}),
        (["--token_merge"], {"token_merge": True}),
        (["--keep_tokens", "none"], {"keep_tokens": None}),
        (["--keep_tokens", "0"], {"keep_tokens": 0}),
        (["--keep_tokens", "1000"], {"keep_tokens": 1000}),  # the framework keeps what there is
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_are_the_fields_of_the_configuration(seeless, guest, flags, expected):
    row = run_json(seeless, "--plugin", guest, "--strategy", "myguest", *flags)["runs"][1]
    for name, value in expected.items():
        assert (row["fields"][name], type(row["fields"][name])) == (value, type(value))


def test_a_flag_reaches_the_strategy(seeless, guest):
    def first(*flags):
        return kept(
            run_json(seeless, "--plugin", guest, "--strategy", "myguest", "--keep_tokens", 9, *flags)["runs"][1]
        )

    assert not set(first()[0]) & set(first("--loud")[0])


def test_several_layers_and_a_router(seeless, guest):
    arguments = ["--plugin", guest, "--strategy", "switch", "--prune_layer", "3,7", "--keep_tokens", "72,18"]
    row = run_json(seeless, *arguments)["runs"][1]
    assert [(stage["layer"], stage["n_after"]) for stage in row["report"]["stages"]] == [(3, [72]), (7, [18])]


def test_compare_mixes_native_and_guest(seeless, guest):
    arguments = ["--plugin", guest, "--compare", "fastv,myguest,vtr:fastv", "--keep", 9, "--keep_tokens", 12,
                 "--vtr:fastv.keep-tokens", 6, "--vtr:fastv.query-aggregation", "last",
                 "--fastv.layer", 3, "--loud"]  # fmt: skip
    data = run_json(seeless, *arguments)
    assert [row["strategy"] for row in data["runs"]] == ["none", "fastv", "myguest", "vtr:fastv"]
    assert [row["visual_tokens"] for row in data["runs"]] == [144, 9, 12, 6]
    _, native, mine, framework = (row["fields"] for row in data["runs"])
    assert (native["keep"], native["layer"]) == (9, 3)
    assert (mine["keep_tokens"], mine["loud"]) == (12, True)
    assert (framework["keep_tokens"], "loud" in framework) == (6, False)
    assert set(kept(data["runs"][3])[0]) <= set(kept(data["runs"][1])[0])  # both rank by the same attention


def test_the_table_shows_what_was_set(seeless, guest):
    outcome = seeless(
        "run", "--model", "tiny", *QUICK, "--plugin", guest, "--compare", "pool,myguest", "--keep-tokens", 36
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "\nMyConfig(strategy='myguest', keep_tokens=36)\n" in outcome.out
    assert "144 -> 36 from layer 3 (myguest)" in outcome.out
    assert "Pool(keep=0.25" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--strategy", "mygest"], 2, ["'mygest'", "did you mean myguest"]),
        (["--strategy", "fastvv"], 2, ["did you mean fastv"]),
        (["--strategy", "vtr:fastvv"], 2, ["'vtr:fastvv'", "did you mean vtr:fastv?"]),
        (["--strategy", "vtr:pyramiddrop"], 2, ["'vtr:pyramiddrop'"]),
        (["--compare", "fastv,vtr:none"], 2, ["'vtr:none'"]),
        (["--strategy", "myguest", "--my_temprature", "1"], 2, ["'my_temprature'", "did you mean my_temperature?"]),
        (["--strategy", "myguest", "--no_such", "1"], 2, ["myguest has no field 'no_such'"]),
        (["--strategy", "myguest", "--keep", "9"], 2, ["myguest has no field 'keep'", "keep_tokens", "belongs to"]),
        (["--strategy", "fastv", "--keep_tokens", "9"], 2, ["'keep_tokens' (keep_tokens belongs to", "vtr:fastv"]),
        (["--strategy", "vtr:fastv", "--loud"], 2, ["vtr:fastv has no field 'loud'", "belongs to myguest"]),
        (["--compare", "fastv,myguest", "--no-such"], 2, ["none of fastv, myguest has a field 'no_such'"]),
        (["--compare", "fastv,myguest", "--vtr:fastv.keep_tokens", "3"], 2, ["for 'vtr:fastv'", "fastv, myguest"]),
        (["--strategy", "myguest", "--myguest.strategy", "fastv"], 2, ["has no field 'strategy'"]),
        (["--strategy", "myguest", "--keep_tokens", "0.5"], 2, ["--keep-tokens 0.5 is not possible", "whole number"]),
        (["--strategy", "myguest", "--keep_tokens", "-1"], 2, ["keep_tokens=-1", "from 0 on"]),
        (["--strategy", "myguest", "--keep_tokens"], 2, ["--keep-tokens needs a value"]),
        (["--strategy", "myguest", "--keep_ratio", "1.5"], 2, ["keep_ratio=1.5"]),
        (["--strategy", "myguest", "--keep_tokens", "9,3"], 2, ["one entry per prune layer"]),
        (["--strategy", "myguest", "--my_temperature", "0"], 2, ["myguest: my_temperature must be above 0"]),
        (["--strategy", "myguest", "--my_temperature", "hot"], 2, ["--my-temperature hot", "it takes number"]),
        (["--strategy", "myguest", "--prune_layer", "99"], 2, ["myguest would leave this model as it is", "1 to 7"]),
        (["--strategy", "myguest", "--no-enabled"], 2, ["myguest would leave this model as it is"]),
        (["--strategy", "vtr:fastv", "--as_released"], 2, ["as_released", "llava"]),
        (["--strategy", "vtr:fastv", "--video_pruning_mode", "window"], 2, ["reserved names"]),
        (["--strategy", "vtr:clse", "--prune_layer", "1,2,3,4"], 2, ["presets are for 3 cuts"]),
        (["--strategy", "priortr_2f", "--prior_mode", "template"], 4, ["prior_mode='template'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and value[0].startswith("--") else "",
)
def test_mistakes(seeless, guest, arguments, code, parts):
    if arguments[1] == "priortr_2f":  # whether seeless has one of its own, too, does not matter here
        arguments = ["--strategy", "vtr:priortr_2f", *arguments[2:]]
    refused(seeless("run", "--model", "tiny", "--plugin", guest, *arguments), code, *parts)


def test_what_cannot_work_is_refused_before_weights_are_looked_for(seeless, tmp_path):
    folder = save_llava_next(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    refused(seeless("run", "--model", folder, "--strategy", "vtr:clse"), 4, "LLaVA-NeXT", "seeless.CLSE")
    refused(seeless("run", "--model", folder, "--compare", "fastv,vtr:clse"), 4, "LLaVA-NeXT")
    refused(seeless("run", "--model", folder, "--strategy", "vtr:vispruner"), 4, "show no patch", "scope='crop'")
    refused(seeless("run", "--model", folder, "--strategy", "vtr:fastv"), 6, "cannot load")  # it only lacks weights
    info = json.loads(seeless("info", folder, "--json").out)
    assert list(info["strategies"]) == sl.available()
    assert list(info["guests"]) == guest_names()
    assert "LLaVA-NeXT" in info["guests"]["vtr:clse"]
    assert "newline" in info["guests"]["vtr:vispruner"]
    assert (info["strategies"]["vispruner"], info["strategies"]["fastervlm"]) == (None, None)
    assert info["guests"]["vtr:fastv"] is None


def test_checking_leaves_the_random_numbers_alone():
    model, state = load_tiny()[0], torch.get_rng_state()
    models.check_strategy(model, VTRConfig(strategy="sparsevlm", token_merge=True, keep_ratio=0.25))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_too_shallow_for_the_default_layer(seeless, tmp_path):
    folder = save_llava(tmp_path / "model", layers=2)
    refused(seeless("run", "--model", folder, "--strategy", "vtr:fastv"), 2, "layers 1 to 1")
    assert seeless("run", *QUICK, "--model", folder, "--strategy", "vtr:fastv", "--prune_layer", 1).code == 0


def test_list_has_a_section_for_guests(seeless, guest):
    out = seeless("list", "--plugin", guest).out
    own, guests = out.split("Guests of seeless.vtr")
    assert "vtr:" not in own
    lines = {line.split()[0]: line for line in guests.splitlines() if line.strip()}
    assert {"myguest", "switch", "vtr:fastv", "vtr:priortr", "vtr:vispruner"} <= set(lines)
    assert "my_temperature=1.0," in lines["myguest"] and "loud=False" in guests  # cells may go on in the next line
    assert "What the last token attends" in lines["myguest"]
    assert "keep_tokens" not in lines["myguest"]
    assert "myguest" not in own
    cards = json.loads(seeless("list", "--json", "--plugin", guest).out)
    assert [card["name"] for card in cards if not card["guest"]] == sl.available()
    assert [card["name"] for card in cards if card["guest"]] == guest_names()
    stages = {card["name"]: card["stage"] for card in cards}
    assert (stages["vtr:vispruner"], stages["vtr:fastv"]) == ("entry", "layer")


def test_a_guest_has_a_card(seeless, guest):
    out = seeless("info", "myguest", "--plugin", guest).out
    for part in ("guest of seeless.vtr", "layer stage", "More about it.", "--my-temperature", "to the power of"):
        assert part in out
    card = json.loads(seeless("info", "myguest", "--plugin", guest, "--json").out)
    knobs = {knob["name"]: knob for knob in card["fields"]}
    assert "strategy" not in knobs
    assert (knobs["my_temperature"]["common"], knobs["keep_tokens"]["common"]) == (False, True)
    assert knobs["video_pruning_mode"]["takes"] == "none, frame or window"
    card = json.loads(seeless("info", "vtr:fastv", "--json").out)
    assert card["doc"].startswith("score = attention of the last row")
    assert all(knob["help"] and "Raises" not in knob["help"] for knob in card["fields"])
    assert json.loads(seeless("info", "switch", "--plugin", guest, "--json").out)["doc"] == ""
    refused(seeless("info", "vtr:fastvv"), 2, "did you mean vtr:fastv?")


def test_a_plugins_guest_wins_and_says_so(seeless, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from seeless.vtr import PruningStrategy, register_strategy\n"
        "@register_strategy('uniform')\n"
        "class Mine(PruningStrategy):\n"
        "    def compute_scores(self, attention, image_token_range, config, **ctx):\n"
        "        start, end = image_token_range\n"
        "        return attention.shape[-1] - attention[:, 0, -1, start:end].squeeze(0)\n"
    )
    outcome = seeless(
        "run", "--model", "tiny", *QUICK, "--json", "--plugin", "mine.py", "--strategy", "uniform", "--keep_tokens", 9
    )
    assert json.loads(outcome.out)["runs"][1]["fields"]["keep_tokens"] == 9
    assert outcome.err == "'uniform' is the plugin's guest; seeless' own strategy of this name is not used\n"
    row = run_json(seeless, "--plugin", "mine.py", "--strategy", "vtr:uniform", "--keep_tokens", 9)["runs"][1]
    assert row["fields"]["keep_tokens"] == 9


def test_the_only_configuration_of_a_module_belongs_to_its_strategies(seeless, tmp_path):
    code = (
        "from dataclasses import dataclass\n"
        "from seeless.vtr import FastVStrategy, VTRConfig, register_strategy\n"
        "@dataclass\n"
        "class Mine(VTRConfig):\n"
        "    gain: float = 2.0\n"
        "register_strategy('gained')(type('Gained', (FastVStrategy,), {'__module__': __name__}))\n"
    )
    (tmp_path / "one.py").write_text(code)
    fields = run_json(seeless, "--plugin", "one.py", "--strategy", "gained", "--gain", "3")["runs"][1]["fields"]
    assert fields["gain"] == 3.0
    (tmp_path / "bare.py").write_text(code.replace("@dataclass\n", "").replace("gained", "bare"))
    refused(
        seeless("run", "--model", "tiny", "--plugin", "bare.py", "--strategy", "bare"),
        2,
        "Mine is no dataclass",
        "@dataclass",
    )


def test_a_guest_outside_a_module_has_the_common_configuration():
    @register_strategy("homeless")
    class Homeless:
        __module__ = "nowhere"

        def compute_scores(self, attention, image_token_range, config, **ctx): ...

    try:
        assert choose("homeless").flags_of is VTRConfig
    finally:
        del VTR_REGISTRY["homeless"]
