"""Types of models from which visual tokens cannot be dropped as seeless does it, and why."""

CROSS_ATTENTION = "its decoder looks at pictures by cross-attention, so no visual token stands among those of the text"
ENCODER_DECODER = "it is an encoder-decoder: pictures are read by an encoder, and the decoder's own sequence has none"
LEARNED_QUERIES = (
    "learned queries (a Q-Former, perceiver or resampler) sum every picture up, so that no visual token belongs to a "
    "place in the picture"
)
WORDS = "its pictures are words of a vocabulary (VQ tokens), which the model embeds as it does text"
INDEXED = (
    "its decoder's attention picks the keys it looks at by an index of its own, from which tokens cannot be dropped"
)
RECURRENT = "its decoder has recurrent layers beside attention that picks keys by an index of its own"
NO_TOWER = "it has no vision tower: patches enter the decoder through one projection"
NO_PLACEHOLDERS = "it puts pictures before the text by itself, without placeholders that say where they stand"
RELATIVE = (
    "its decoder has no rotary embedding but biases of distances and convolutions over neighbours, both of which "
    "change where tokens leave"
)

REFUSED: dict[str, str] = {
    "apertus1p5": WORDS,
    "aria": LEARNED_QUERIES,
    "blip": CROSS_ATTENTION,
    "blip-2": LEARNED_QUERIES,
    "chameleon": WORDS,
    "deepseek_ocr2": LEARNED_QUERIES,
    "diffusion_gemma": "it writes text by diffusion, whole blocks at once, not token after token",
    "dots3_note": INDEXED,
    "emu3": WORDS,
    "evolla": "it reads proteins, not pictures, and its decoder looks at them by cross-attention",
    "florence2": ENCODER_DECODER,
    "fuyu": NO_TOWER,
    "gemma4_unified": NO_TOWER,
    "git": NO_PLACEHOLDERS,
    "glm5_next": RECURRENT,
    "hy_v4_vl": INDEXED,
    "idefics": CROSS_ATTENTION,
    "idefics2": LEARNED_QUERIES,
    "inkling2": RELATIVE,
    "inkling2_loop": RELATIVE,
    "inkling_mm_model": RELATIVE,
    "instructblip": LEARNED_QUERIES,
    "instructblipvideo": LEARNED_QUERIES,
    "kosmos-2": LEARNED_QUERIES,
    "kosmos-2.5": LEARNED_QUERIES,
    "llama4": "transformers 5.24 cannot run it with pictures ('MoeCausalLMOutputWithPast' object has no attribute "
    "'image_outputs'), and three quarters of its layers attend within chunks",
    "minimax_m3_vl": INDEXED,
    "mistral4": "it is the text decoder alone; the model with a vision tower around it is of type 'mistral3'",
    "mistral_large4": INDEXED,
    "mllama": CROSS_ATTENTION,
    "nemotron_h_omni": "its decoder has layers with state spaces",
    "pi0": "it plans the movements of robots, and writes no text",
    "pix2struct": ENCODER_DECODER,
    "pp_formulanet": ENCODER_DECODER,
    "qwen4_exp": RECURRENT,
    "shieldgemma2": "it is a classifier around a Gemma 3; give that: seeless.apply(model.model, ...)",
    "t5gemma2": ENCODER_DECODER,
    "udop": ENCODER_DECODER,
    "unlimited_ocr": "its decoder looks back over a window beside the prompt, which dropping would move",
    "vision-encoder-decoder": ENCODER_DECODER,
}
