"""Where a model looks: studies of its attention over many pictures, on any supported model.

from seeless.analysis import AttentionShift, read_attention

reading = read_attention(model, inputs)       # one picture: `reading.last` [layers, visual], `reading.tower` [visual]
"""

from seeless.analysis.dispersion import AttentionDispersion
from seeless.analysis.gathering import Gathered, Measured, OtherStudy
from seeless.analysis.occlusion import Occlusion
from seeless.analysis.overlap import KeptOverlap
from seeless.analysis.reading import Reading, read_attention
from seeless.analysis.running import analyze
from seeless.analysis.samples import Sample, drawing_samples, folder_samples, record_samples, scene_samples
from seeless.analysis.share import AttentionShare
from seeless.analysis.shift import AttentionShift
from seeless.analysis.study import Seen, Study

STUDIES: dict[str, type[Study]] = {study.name: study for study in (AttentionShift, AttentionDispersion, AttentionShare)}

__all__ = [
    "STUDIES",
    "AttentionDispersion",
    "AttentionShare",
    "AttentionShift",
    "Gathered",
    "KeptOverlap",
    "Measured",
    "Occlusion",
    "OtherStudy",
    "Reading",
    "Sample",
    "Seen",
    "Study",
    "analyze",
    "drawing_samples",
    "folder_samples",
    "read_attention",
    "record_samples",
    "scene_samples",
]
