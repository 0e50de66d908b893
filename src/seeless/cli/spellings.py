"""What the scripts of the original methods call their options."""

SPELLINGS = {
    "layer_list": "layer",  # PyramidDrop
    "image_token_ratio_list": "keep",
    "visual_token_num": "keep",  # FasterVLM, VisPruner
    "fast_v_agg_layer": "layer",  # FastV
    "fast_v_attention_rank": "keep",
}
