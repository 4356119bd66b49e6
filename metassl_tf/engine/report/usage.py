"""The last sections: every setting, how to get the same run again, and how to serve the model."""

import shlex

from metassl_tf.engine.report import formats
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.markup import Html, details, element, join, table
from metassl_tf.engine.report.page import Section, paragraphs


def settings_section(content: Content) -> Section:
    """All settings, those that were left at their default too."""
    rows = [[element("code", f"--{name}"), formats.setting(value)] for name, value in content.result["config"].items()]
    settings = table(["flag", "value"], rows, label="All settings")
    return Section(title="Settings", html=details(f"All {len(rows)} settings", settings))


def reproduce_section(content: Content) -> Section:
    """The command that repeats the run, and the file it reads."""
    config = shlex.quote(str(content.workdir / "config.flags"))
    command = f"python -m metassl_tf.train --flagfile={config} --workdir=runs/again"
    text = paragraphs(
        "The file config.flags holds every setting that has an effect. On the same type of machine, with the same "
        "versions and number of threads, a run on CPU repeats to the bit (--deterministic)."
    )
    file = details("config.flags", _code(content.flagfile))
    return Section(title="Reproduce", html=join([text, _code(command), file]))


def serve_section(content: Content) -> Section:
    """How to load the exported model, and how to put it behind TensorFlow Serving."""
    export = content.workdir / "export"
    if content.modality == "image":
        kind, request = "images, uint8 [N, H, W, C] of the size it was trained on", _image_request()
    else:
        kind, request = "points, float32 [N, D]", f"-d '{{\"instances\": [{_example_point(content)}]}}'"
    python = (
        "import tensorflow as tf\n\n"
        f"model = tf.saved_model.load({str(export)!r})\n"
        f'answer = model.signatures["serving_default"](tf.constant(inputs))  # {kind}\n'
        'answer["class_name"], answer["probabilities"]'
    )
    server = (
        f'docker run -p 8501:8501 -v "$(realpath {shlex.quote(str(export))}):/models/model/1" tensorflow/serving\n'
        f"curl {request} http://localhost:8501/v1/models/model:predict"
    )
    parts: list[Html] = [
        paragraphs("In Python, with TensorFlow alone; the input's normalisation is part of the model:"),
        _code(python),
        paragraphs("Behind TensorFlow Serving:"),
        _code(server),
    ]
    return Section(title="Serve", html=join(parts))


def _image_request() -> str:
    body = r"{\"signature_name\": \"serving_bytes\", \"instances\": [{\"b64\": \"$(base64 -w0 image.png)\"}]}"
    return f'-d "{body}"'


def _example_point(content: Content) -> str:
    point = content.labeled.inputs[:1].tolist() or [[0.0] * content.labeled.shape[0]]
    return f"[{', '.join(f'{value:.3g}' for value in point[0])}]"


def _code(text: str) -> Html:
    return element("pre", element("code", text))
