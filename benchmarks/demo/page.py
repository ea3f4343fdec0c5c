"""The page: a picture and a question on one side, what to do with them on the other, in tabs.

Gradio's own picture component would write every upload to a file. A picture is chosen here by an `<input type=file>`
instead, stays in the browser as a data: address, and comes along with each request.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from benchmarks.demo.functions import Demo
from benchmarks.demo.html import answers, chosen, example_buttons, hits, map_of, said, side_by_side
from benchmarks.demo.runs import ShownRun

_HERE = Path(__file__).parent
_EMPTY = "<p class='mt-soft'>Nothing yet.</p>"
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}


def build(demo: Demo) -> Any:
    """A `gradio.Blocks` of the demo."""
    import gradio as gr

    asks = demo.runs[0].answers_questions
    what = "Question" if asks else "Text"
    with gr.Blocks(title="mt2st demo", analytics_enabled=False) as page:
        gr.HTML(_head(demo.runs), apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                picker = gr.HTML(
                    "",
                    html_template=_picker(demo),
                    js_on_load=_script("picker.js"),
                    apply_default_css=False,
                    elem_id="picker",
                )
                shown = _output("shown")
                question = gr.Textbox(
                    label=what,
                    placeholder="what colour is it?" if asks else "a red bird",
                    elem_id="question",
                    lines=1,
                    max_lines=1,
                )
                examples = _examples(demo)
            with gr.Column(scale=3, min_width=280), gr.Tabs(elem_id="tabs"):
                if asks:
                    with gr.Tab("Ask"):
                        ask = gr.Button("Ask", variant="primary", elem_id="ask")
                        answered = _output("answers")
                with gr.Tab("Search"):
                    query = gr.Textbox(label="Find pictures by a text", elem_id="query", lines=1, max_lines=1)
                    with gr.Row():
                        by_text = gr.Button("Search by text", variant="primary", elem_id="by-text")
                        by_picture = gr.Button("Search by the picture", elem_id="by-picture")
                    found = _output("hits")
                with gr.Tab("Compare"):
                    both_query = gr.Textbox(label="A text for both", elem_id="both-query", lines=1, max_lines=1)
                    with gr.Row():
                        both_ask = gr.Button("Ask both", variant="primary", elem_id="both-ask", visible=asks)
                        both_search = gr.Button("Search with both", elem_id="both-search")
                    compared = _output("compared")
                with gr.Tab("Why"):
                    choices = [
                        ("the most probable one", ""),
                        *((answer, answer) for answer in demo.runs[0].model.answers),
                    ]
                    explained = gr.Dropdown(
                        choices, value="", label="Answer to look at", elem_id="explained", visible=asks
                    )
                    why = gr.Button("Show where it looked", variant="primary", elem_id="why")
                    looked = _output("looked")

        def show(address: str) -> str:
            return said(lambda: chosen(demo.picture(address)))

        def on_ask(address: str, text: str) -> str:
            return said(lambda: answers(demo.ask(address, text)))

        def on_example(event: Any) -> tuple[str, str, str, str]:
            number = int(event.index)
            address, text = demo.example_picture(number), demo.examples[number].question
            return address, text, show(address), on_ask(address, text)

        on_example.__annotations__["event"] = gr.SelectData  # Gradio looks it up; a name in quotes it would not find

        picker.upload(show, picker, shown, **_PRIVATE)
        if asks:
            for event in (ask.click, question.submit):
                event(on_ask, [picker, question], answered, **_PRIVATE)
            if examples is not None:
                examples.select(on_example, None, [picker, question, shown, answered], **_PRIVATE)
        for event in (by_text.click, query.submit):
            event(lambda text: said(lambda: hits(demo.search_text(text))), query, found, **_PRIVATE)
        by_picture.click(lambda address: said(lambda: hits(demo.search_picture(address))), picker, found, **_PRIVATE)
        both_ask.click(
            lambda *given: said(lambda: _answers_of_all(demo, *given)), [picker, question], compared, **_PRIVATE
        )
        for event in (both_search.click, both_query.submit):
            event(lambda text: said(lambda: _hits_of_all(demo, text)), both_query, compared, **_PRIVATE)
        why.click(
            lambda *given: said(lambda: map_of(demo.why(*given))), [picker, question, explained], looked, **_PRIVATE
        )
    page.queue(default_concurrency_limit=1, max_size=64, api_open=False)
    return page


def _output(name: str) -> Any:
    """A place for results, which a screen reader reads out when they change."""
    import gradio as gr

    template = "<div aria-live='polite'>${value}</div>"
    return gr.HTML(_EMPTY, html_template=template, js_on_load=None, apply_default_css=False, elem_id=name)


def _examples(demo: Demo) -> Any:
    import gradio as gr

    if not demo.runs[0].answers_questions:
        return None
    kept = demo.examples
    if not kept:
        gr.HTML("<p class='mt-soft'>This run kept no examples of its test split.</p>", apply_default_css=False)
        return None
    with gr.Accordion(f"{len(kept)} examples of the test split", open=True):
        buttons = example_buttons([demo.example_picture(number) for number in range(len(kept))], kept)
        return gr.HTML(
            buttons, js_on_load=_script("examples.js"), apply_default_css=False, elem_id="examples", max_height=320
        )


def _answers_of_all(demo: Demo, address: str, question: str) -> str:
    return side_by_side([(asked.run, answers(asked)) for asked in demo.ask_all(address, question)])


def _hits_of_all(demo: Demo, text: str) -> str:
    return side_by_side([(found.run, hits(found)) for found in demo.search_text_all(text)])


def _head(runs: list[ShownRun]) -> str:
    lines = []
    for run in runs:
        about = run.model.about
        scores = about.get("test", {})
        facts = [f"{name} {value:.4g}" for name, value in list(scores.items())[:1]]
        if about.get("data", {}).get("name"):
            facts.append(f"trained on {about['data']['name']}")
        if about.get("training_flops"):
            facts.append(f"{about['training_flops'] / 1e12:.3g} training TFLOPs")
        lines.append(f"<li><b>{html.escape(run.name)}</b> {html.escape(' · '.join(facts))}</li>")
    aligned = (
        "<p class='mt-soft'>Search uses embeddings that the contrastive auxiliary trains; a run without it finds "
        "nothing that makes sense.</p>"
        if runs[0].answers_questions
        else ""
    )
    return f"<header class='mt-head'><h1>mt2st</h1><ul>{''.join(lines)}</ul>{aligned}</header>"


def _picker(demo: Demo) -> str:
    options = demo.options
    return (
        "<div class='mt-picker'><label for='mt-file'>Picture</label>"
        f"<input id='mt-file' type='file' accept='image/*' data-most='{options.most_bytes}'>"
        f"<p class='mt-soft mt-said' role='status'>Choose a file or drop one here: up to {options.most_megabytes:g} MB "
        f"and {options.most_megapixels:g} megapixels. It is decoded in memory and never kept.</p></div>"
    )


def _script(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def style() -> str:
    """The page's style sheet."""
    return _script("page.css")
