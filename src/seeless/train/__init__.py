"""Train with fewer visual tokens: LLaVA-format data, the Hugging Face Trainer, any strategy.

from seeless.train import Settings, finetune, read_records

records, bad = read_records(Path("llava.json"), image_folder=Path("images"))
finetune(model, processor, records, Settings(output=Path("run")), strategy=sl.PyramidDrop())
"""

from seeless.train.bad import BadRecordList
from seeless.train.batches import Batches
from seeless.train.chat import ChatFormat
from seeless.train.errors import BadRecords
from seeless.train.finetune import Outcome, finetune
from seeless.train.records import BadRecord, Record, read_records
from seeless.train.scenes import write_scenes
from seeless.train.settings import Settings

__all__ = [
    "BadRecord",
    "BadRecordList",
    "BadRecords",
    "Batches",
    "ChatFormat",
    "Outcome",
    "Record",
    "Settings",
    "finetune",
    "read_records",
    "write_scenes",
]
