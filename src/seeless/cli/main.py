"""The entry point: wires the verbs, and turns errors into one line and an exit code."""

import importlib.util
import shutil
import sys

import seeless as sl

INSTALL = 'pip install "seeless[cli]"'
NEEDED = ("typer", "rich", "PIL")
ROOM_FOR_PANELS = 80  # columns; below, panels cut names of options off
FIELDS_ARE_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    if any(importlib.util.find_spec(package) is None for package in NEEDED):
        print(f"error: the command line needs typer, rich and Pillow: {INSTALL}", file=sys.stderr)
        sys.exit(sl.MissingExtra.exit_code)
    import typer

    from seeless.cli.advise import advise
    from seeless.cli.analyze import analyze
    from seeless.cli.bench import bench
    from seeless.cli.check_family import check_family
    from seeless.cli.console import whole_output
    from seeless.cli.demo import demo
    from seeless.cli.errors import EXIT_CODES, TORCHVISION, is_torchvisions
    from seeless.cli.eval import evaluate
    from seeless.cli.flags import refuse_empty
    from seeless.cli.info import info
    from seeless.cli.list import list_strategies
    from seeless.cli.plot import plot
    from seeless.cli.published import published
    from seeless.cli.run import run
    from seeless.cli.script_flags import spelled
    from seeless.cli.serve import serve
    from seeless.cli.sweep import sweep
    from seeless.cli.tasks_path import print_tasks_path
    from seeless.cli.train import train
    from seeless.errors import one_line
    from seeless.named.errors import naming_strategies

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"seeless {sl.__version__}")
            raise typer.Exit

    codes = "\n\n".join(f"{code}  {meaning}" for code, meaning in EXIT_CODES.items())
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if shutil.get_terminal_size().columns >= ROOM_FOR_PANELS else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=f"Exit codes\n\n{codes}",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Print it."),
    ) -> None:
        """Vision-language models that look at fewer visual tokens."""

    app.command("list")(list_strategies)
    app.command("info")(info)
    app.command("run", context_settings=FIELDS_ARE_FLAGS)(run)
    app.command("train", context_settings=FIELDS_ARE_FLAGS)(train)
    app.command("eval", context_settings={**FIELDS_ARE_FLAGS, "token_normalize_func": spelled})(evaluate)
    app.command("sweep", context_settings=FIELDS_ARE_FLAGS)(sweep)
    app.command("bench", context_settings=FIELDS_ARE_FLAGS)(bench)
    app.command("serve", context_settings=FIELDS_ARE_FLAGS)(serve)
    app.command("advise")(advise)
    app.command("analyze")(analyze)
    app.command("demo")(demo)
    app.command("plot")(plot)
    app.command("published")(published)
    app.command("check-family")(check_family)
    app.command("tasks-path")(print_tasks_path)
    try:
        with whole_output(), naming_strategies():
            refuse_empty(sys.argv[1:] if arguments is None else arguments)
            app(args=arguments, prog_name="seeless")
    except sl.SeelessError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if not is_torchvisions(error):
            raise
        print(f"error: {TORCHVISION}", file=sys.stderr)
        sys.exit(sl.MissingExtra.exit_code)


if __name__ == "__main__":
    main()
