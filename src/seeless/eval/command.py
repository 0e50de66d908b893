"""The command that runs an evaluation, as it can be pasted into a shell."""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Evaluation:
    """One run of lmms-eval.

    Args:
        model_id: of the plug-in.
        model_args: what it is told, `pretrained` and the strategy included. Budgets travel here and never in the
            environment, because lmms-eval's response cache knows runs by them.
        tasks: as lmms-eval knows them.
        include_path: a folder with more tasks.
        output: where results and samples go.
        batch_size: questions per forward.
        simple: use the plug-in's simple interface, the only one that lmms-eval compares likelihoods through.
        limit: questions per task, below 1 their share; None: all.
        extra: model arguments appended as they are.
        gpus: device numbers, "" for those there are.
        processes: how many share the questions.
        port: where they meet.
        cache_dir: where checkpoints from the hub are kept; None: where they always are.
        cpu: whether there is no GPU.
    """

    model_id: str
    model_args: dict[str, str]
    tasks: list[str]
    include_path: Path
    output: Path
    batch_size: int = 1
    simple: bool = False
    limit: float | None = None
    extra: str = ""
    gpus: str = ""
    processes: int = 1
    port: int = 29500
    cache_dir: Path | None = None
    cpu: bool = field(default=False)

    def command(self) -> list[str]:
        """Program and arguments.

        Several processes are started by torchrun: `accelerate launch` starts a single one on machines without a GPU,
        without a word, and otherwise does the same.
        """
        start = [sys.executable, "-m"]
        if self.processes > 1:
            start += ["torch.distributed.run", f"--nproc_per_node={self.processes}", f"--master_port={self.port}", "-m"]
        arguments = ",".join(f"{name}={value}" for name, value in self.model_args.items())
        return [
            *start,
            *("lmms_eval", "--model", self.model_id),
            *("--model_args", f"{arguments},{self.extra}" if self.extra else arguments),
            *("--tasks", ",".join(self.tasks), "--include_path", str(self.include_path)),
            *(
                "--batch_size",
                str(self.batch_size),
                "--output_path",
                str(self.output),
                "--log_samples",
                "--timezone",
                "UTC",
            ),
            *([] if self.limit is None else ["--limit", str(self.limit)]),
            *(["--force_simple"] if self.simple else []),
        ]

    def environment(self) -> dict[str, str]:
        """What is added to the environment."""
        added = {"PYTHONUNBUFFERED": "1"}
        if self.gpus:
            added["CUDA_VISIBLE_DEVICES"] = self.gpus
        if self.cache_dir is not None:
            added["HF_HUB_CACHE"] = str(self.cache_dir.resolve())
        if self.processes > 1 and self.cpu:
            added["ACCELERATE_USE_CPU"] = "true"
        return added

    def line(self) -> str:
        """Environment and command in one line for a shell.

        >>> run = Evaluation("seeless", {"pretrained": "tiny", "layer": "[2;4]"}, ["mme"], Path("my tasks"), Path("o"))
        >>> run.line().partition(" lmms_eval ")[2].partition(" --batch_size")[0]
        "--model seeless --model_args 'pretrained=tiny,layer=[2;4]' --tasks mme --include_path 'my tasks'"
        """
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return " ".join([*settings, shlex.join(self.command())])
