"""The page itself: what it asks for, and what happens when something on it is used."""

from collections.abc import Iterator
from typing import Any

from seeless.demo.answering import MOST_METHODS, answer_side_by_side, methods_with_budget
from seeless.demo.asked import LONGEST_QUESTION, MOST_DRAWINGS, questions_about, task_of
from seeless.demo.rendering import answers_html, error_html, preview_html
from seeless.demo.shelf import Shelf
from seeless.errors import SeelessError, one_line
from seeless.eval.nominal import By

TITLE = "seeless: fewer visual tokens"
METHODS = ["fastv", "fastervlm"]
BUDGET = 0.25
BUDGETS: list[tuple[str, By]] = [("what a method keeps in the end", "keep"), ("what layers see on average", "average")]
KEPT_FILES = 3600  # seconds after which what was uploaded is deleted


class Page:
    """The answers to a visitor's doings.

    Args:
        shelf: the models it offers.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def show(
        self, model: str, upload: str | None, number: float | None, question: str, proposed: str
    ) -> tuple[str, str, str]:
        """What was chosen or drawn, as HTML, a question to it, and the one that is proposed.

        Args:
            question: what is written there; it stays if it is the visitor's own, and not the one `proposed` before.
        """
        embedded = self.shelf.embedded(model)
        try:
            task = task_of(upload, number, None, embedded)
        except SeelessError as error:
            return error_html(one_line(error)), question, proposed
        shown = preview_html(task, questions_about(upload, number, embedded))
        return shown, task.question if question in ("", proposed) else question, task.question

    def answer(
        self,
        model: str,
        upload: str | None,
        number: float | None,
        question: str,
        methods: list[str],
        by: By,
        budget: float,
    ) -> Iterator[str]:
        """The answers as HTML, first without times; or a sentence that says why there are none."""
        try:
            task = task_of(upload, number, question, self.shelf.embedded(model))
            for answers in answer_side_by_side(self.shelf.load(model), task, methods, float(budget), by):
                yield answers_html(task.question, answers)
        except SeelessError as error:
            yield error_html(one_line(error))

    def build(self) -> Any:
        """The page as Gradio's `Blocks`."""
        import gradio as gr

        forgetting = KEPT_FILES, KEPT_FILES
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=forgetting) as blocks:
            gr.Markdown("# seeless\nWhat does a model answer when it looks at fewer visual tokens, and at which?")
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    names = self.shelf.names
                    model = gr.Dropdown(names, value=names[0], label="Model", interactive=True)
                    upload = gr.File(
                        label="Picture or video", file_types=["image", "video"], height=140, elem_id="upload"
                    )
                    number = gr.Number(
                        0, label="Without one: what is drawn for", precision=0, minimum=0, maximum=MOST_DRAWINGS - 1
                    )
                    preview = gr.HTML(elem_classes="seeless-preview", elem_id="preview")
                    question = gr.Textbox(
                        label="Question", lines=1, max_lines=1, max_length=LONGEST_QUESTION, elem_id="question"
                    )
                    methods = gr.Dropdown(
                        methods_with_budget(),
                        value=METHODS,
                        multiselect=True,
                        max_choices=MOST_METHODS,
                        label=f"Methods, up to {MOST_METHODS}",
                        elem_id="methods",
                    )
                    budget = gr.Slider(
                        0.02, 1.0, BUDGET, step=0.01, label="Budget, as a share of the visual tokens", elem_id="budget"
                    )
                    by = gr.Radio(BUDGETS, value="keep", label="The budget is")
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                with gr.Column(scale=3, min_width=300):
                    results = gr.HTML(elem_id="results")
            proposed, chosen = gr.State(""), [model, upload, number]
            gr.on(
                [blocks.load, model.change, upload.change, number.change],
                self.show,
                [*chosen, question, proposed],
                [preview, question, proposed],
                api_visibility="private",
                show_progress="hidden",
            )
            gr.on(
                [ask.click, question.submit, budget.change, by.change],
                self.answer,
                [*chosen, question, methods, by, budget],
                results,
                api_visibility="private",
                concurrency_limit=1,  # one model, one answer at a time
                trigger_mode="always_last",
            )
        return blocks
