"""`--model_args` of the plug-in: what they build, and what is said about those that mean nothing."""

import pytest
from lmms_eval.utils import simple_parse_args_string

import seeless as sl
from seeless.integrations.lmms_eval.arguments import Door, read_arguments
from seeless.integrations.lmms_eval.model import SeelessLM
from seeless.integrations.lmms_eval.options import cut, generate_options
from seeless.integrations.lmms_eval.vtr import InternVLVTR, LlavaVTR, Qwen2VLVTR, Qwen3VLVTR, VideoLlavaVTR
from seeless.vtr import VTRConfig


def read(text: str, door: Door = SeelessLM.door):
    """As `--model_args` on lmms-eval's command line."""
    return read_arguments(simple_parse_args_string(text), door)


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("", None),
        ("strategy=none", None),
        ("strategy=baseline", None),
        ("strategy=fastv,keep=0.25", sl.FastV(keep=0.25)),
        ("strategy=priortr,keep=64,layer=3,head_aggregation=max", sl.PriorTR(keep=64, layer=3, head_aggregation="max")),
        ("strategy=fastv,keep=1.0", sl.FastV(keep=1.0)),
        ("strategy=fastv", sl.FastV(keep=0.25)),
        ("strategy=pyramiddrop,layer=[8;16;24],keep=[.5;.25;.125]", sl.PyramidDrop([0.5, 0.25, 0.125], [8, 16, 24])),
        ("strategy=pyramiddrop,layer=[8,16,24],keep=[.5,.25,.125]", sl.PyramidDrop([0.5, 0.25, 0.125], [8, 16, 24])),
        ("strategy=pyramiddrop,layer=8;16;24,keep=.5;.25;.125", sl.PyramidDrop([0.5, 0.25, 0.125], [8, 16, 24])),
        ("strategy=vtr:fastv,keep_tokens=64", VTRConfig(strategy="fastv", keep_tokens=64)),
    ],
)
def test_strategies(text, strategy):
    assert read(f"pretrained=tiny,{text}").strategy == strategy


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", VTRConfig(strategy="priortr")),
        ("keep_tokens=192,prune_layer=3", VTRConfig(strategy="priortr", keep_tokens=192, prune_layer=3)),
        ("vtr_strategy=fastv,vtr_keep_ratio=0.5", VTRConfig(strategy="fastv", keep_ratio=0.5)),
        ("strategy=priortr,prune_layer=[1,11,21]", VTRConfig(strategy="priortr", prune_layer=[1, 11, 21])),
        ("strategy=clse,vtr_retain_ratio=0.3333", VTRConfig(strategy="clse", retain_ratio=0.3333)),
        ("enabled=False", VTRConfig(strategy="priortr", enabled=False)),
        ("vtr_enabled=False", VTRConfig(strategy="priortr", enabled=False)),
        ("strategy=sparsevlm,vtr_token_merge=True", VTRConfig(strategy="sparsevlm", token_merge=True)),
        ("keep_tokens=,keep_ratio=none,conv_template=vicuna_v1,model_type=priortr", VTRConfig(strategy="priortr")),
        ("use_cache=True,truncate_context=True,customized_config=None", VTRConfig(strategy="priortr")),
        ("strategy=fastervlm,keep=0.5", sl.FasterVLM(keep=0.5)),  # none of PriorTR's: seeless' own
        ("strategy=baseline", None),
    ],
)
def test_strategies_of_priortrs_commands(text, config):
    """With LLaVA's door; its names are PriorTR's own, and the prefix `vtr_` is left out."""
    assert read(f"pretrained=x,{text}", LlavaVTR.door).strategy == config


def test_defaults_of_priortrs_models():
    assert read("pretrained=x", InternVLVTR.door).strategy is None
    assert read("pretrained=x", InternVLVTR.door).images == {"max_patches": 6}
    assert read("pretrained=x,max_num=12,strategy=priortr", InternVLVTR.door).images == {"max_patches": 12}
    qwen = read("pretrained=x,max_num_frames=16", Qwen2VLVTR.door)
    assert qwen.processing == {"min_pixels": 3136, "max_pixels": 602112} and qwen.max_frames == 16
    assert read("pretrained=x,max_pixels=802816", Qwen3VLVTR.door).processing == {
        "min_pixels": 200704,
        "max_pixels": 802816,
    }
    video = read("pretrained=x", VideoLlavaVTR.door)
    assert video.strategy == VTRConfig(strategy="fastv") and video.max_frames == 8


def test_loading():
    found = read("pretrained=a/b,revision=main,dtype=bfloat16,attn_implementation=eager,device_map=auto")
    assert found.pretrained == "a/b" and found.max_frames == 32
    assert found.loading == {
        "revision": "main",
        "dtype": "bfloat16",
        "attn_implementation": "eager",
        "device_map": "auto",
    }


@pytest.mark.parametrize(
    ("text", "door", "message"),
    [
        ("strategy=fastv", SeelessLM.door, "pretrained is missing"),
        ("pretrained=x,strategy=fastw", SeelessLM.door, "did you mean fastv"),
        ("pretrained=x,strategy=fastv,kep=0.5", SeelessLM.door, "did you mean keep?"),
        ("pretrained=x,strategy=fastv,prune_layer=3", SeelessLM.door, "prune_layer belongs to"),
        ("pretrained=x,strategy=fastv,keep=half", SeelessLM.door, "keep=half is not possible; it takes number"),
        ("pretrained=x,strategy=fastv,attn_implementaton=sdpa", SeelessLM.door, "mean attn_implementation?"),
        ("pretrained=x,dtyp=auto", SeelessLM.door, "did you mean dtype?"),
        ("pretrained=x,keep=0.5", SeelessLM.door, "takes no 'keep'; fields belong to a strategy"),
        ("pretrained=x,trust_remote_code=True", SeelessLM.door, "loaded by transformers, unmodified; leave it out"),
        ("pretrained=x,max_frames=0", SeelessLM.door, "a whole number from 1 on"),
        ("pretrained=x,max_pixels=many", SeelessLM.door, "a whole number from 1 on"),
        ("pretrained=x,vtr_keep_ration=0.5", LlavaVTR.door, "did you mean keep_ratio"),
        ("pretrained=x,keep_ratio=7", LlavaVTR.door, "from 0 to 1"),
        ("pretrained=x,conv_template=llava_llama_3", LlavaVTR.door, "the checkpoint's own chat template; leave it"),
        ("pretrained=x,use_cache=False", LlavaVTR.door, "without a KV cache"),
        ("pretrained=x,customized_config=mine.json", LlavaVTR.door, "configured by their own fields"),
    ],
)
def test_refused(text, door, message):
    with pytest.raises(sl.SeelessError, match=message.replace("?", r"\?")):
        read(text, door)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_pixels": 784}, "min_pixels means nothing to CLIPImageProcessor"),
        ({"max_num": 6}, "max_num means nothing to CLIPImageProcessor"),
        ({"batch_size": "auto"}, "batch_size=auto is not possible"),
        ({"plugin": "missing.py"}, "plugin missing.py does not exist"),
        ({"strategy": "fastv", "layer": 99}, "layer"),
        ({"dtype": "bfloat1"}, "cannot load"),
    ],
)
def test_refused_with_the_model(arguments, message):
    with pytest.raises(sl.SeelessError, match=message):
        SeelessLM(pretrained="tiny", **arguments)


def test_generation_arguments(caplog):
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    assert generate_options({"max_gen_toks": 5, "temperature": 0, "top_p": 0.9}) == {"max_new_tokens": 5, **greedy}
    assert generate_options({"do_sample": False, "temperature": 0.7}) == greedy
    assert generate_options({"do_sample": True, "top_k": 3}) == {"do_sample": True, "top_k": 3}
    assert generate_options({"num_beams": None, "image_aspect_ratio": "pad", "something": 1}) == greedy
    assert cut(" yes\nno", "\n") == "yes" and cut(" a. b", None) == "a. b" and cut("###", ["", "###"]) == ""


def test_a_name_that_only_a_plugin_knows():
    """Without `plugin=` the error says that there is such a thing."""
    for door in (Door(), Door("priortr", vtr=True)):
        with pytest.raises(sl.UnknownStrategy, match=r"no strategy is called 'mymethod'.*its file is given as plugin"):
            read_arguments({"pretrained": "tiny", "strategy": "mymethod"}, door)
