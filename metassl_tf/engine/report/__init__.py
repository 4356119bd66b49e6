"""`report/index.html`: one self-contained page about a finished run.

`collect` asks the model once and gathers what the page tells into a `Content`; from there on everything is a pure
function: a section function takes the content and returns a `Section`, or None where it has nothing to show.
A new section is one such function and one line in `build.SECTIONS`.
"""
