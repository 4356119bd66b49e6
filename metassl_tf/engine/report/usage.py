"""The last sections: every setting, how to get the same run again, and how to serve the model."""

import shlex

from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.markup import Html, details, element, join, table
from metassl_tf.engine.report.page import Section, paragraphs
from metassl_tf.flagfile import flag_text


def settings_section(content: Content) -> Section:
    """All settings, those that were left at their default too."""
    rows = [[element("code", f"--{name}"), flag_text(value)] for name, value in content.result["config"].items()]
    settings = table(["flag", "value"], rows, label="All settings")
    return Section(title="Settings", html=details(f"All {len(rows)} settings", settings))


def reproduce_section(content: Content) -> Section:
    """The command that repeats the run, and the file it reads."""
    config = shlex.quote(str(content.workdir / "config.flags"))
    command = f"python -m metassl_tf.train \\\n  --flagfile={config} \\\n  --workdir=runs/again"
    text = paragraphs(
        "The file config.flags holds every setting that has an effect. On the same type of machine, with the same "
        "versions and number of threads, a run on CPU repeats to the bit, unless --deterministic=off."
    )
    file = details("config.flags", _code(content.flagfile))
    return Section(title="Reproduce", html=join([text, _code(command), file]))


def serve_section(content: Content) -> Section:
    """How to load the exported model, and how to put it behind TensorFlow Serving."""
    export = content.workdir / "export"
    if content.modality == "image":
        kind, request = f"uint8 images [N, {', '.join(map(str, content.labeled.shape))}]", _image_request()
    else:
        kind, request = f"float32 points [N, {content.labeled.shape[0]}]", _point_request(content)
    python = (
        "import tensorflow as tf\n\n"
        f"model = tf.saved_model.load({str(export)!r})\n"
        f"# inputs: {kind}\n"
        'answer = model.signatures["serving_default"](tf.constant(inputs))\n'
        'answer["class_name"], answer["probabilities"]'
    )
    mount = f'"$(realpath {shlex.quote(str(export))}):/models/model/1"'
    server = (
        f"docker run -p 8501:8501 \\\n  -v {mount} tensorflow/serving\n"
        f"curl http://localhost:8501/v1/models/model:predict \\\n  {request}"
    )
    folder = (
        f"python -m metassl_tf.evaluate \\\n  --saved_model={shlex.quote(str(export))} \\\n"
        "  --images=photos \\\n  --predictions=photos.csv"
    )
    parts: list[Html] = [
        paragraphs("In Python, with TensorFlow alone; the input's normalisation is part of the model:"),
        _code(python),
        paragraphs("Behind TensorFlow Serving:"),
        _code(server),
    ]
    if content.modality == "image":
        parts += [paragraphs("A folder of images, to a table of classes and confidences:"), _code(folder)]
    return Section(title="Serve", html=join(parts))


def _image_request() -> str:
    body = r"{\"signature_name\": \"serving_bytes\", \"instances\": [{\"b64\": \"$(base64 -w0 image.png)\"}]}"
    return f'-d "{body}"'


def _point_request(content: Content) -> str:
    first = content.labeled.inputs[:1].tolist() or [[0.0] * content.labeled.shape[0]]
    point = ", ".join(f"{value:.3g}" for value in first[0])
    return f"-d '{{\"instances\": [[{point}]]}}'"


def _code(text: str) -> Html:
    return element("pre", element("code", text), tabindex="0")
