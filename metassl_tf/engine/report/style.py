"""The page's style sheet: light or dark as the reader's screen is, and one column on a telephone."""

CSS = """
:root {
  --page: #ffffff; --card: #f6f8fa; --ink: #24292f; --quiet: #57606a; --faint: #d0d7de;
  --accent: #0860c4; --bar: #3f83c8; --good: #1a7f37; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --card: #161b22; --ink: #e6edf3; --quiet: #9aa4af; --faint: #3d444d;
    --accent: #6cb0ff; --bar: #3f83c8; --good: #56c271; --bad: #ff8178;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 3rem; max-width: 72rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word;
}
h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; }
h2 { margin: 0 0 .75rem; font-size: 1.3rem; line-height: 1.3; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1.05rem; }
header p { margin: .25rem 0 1rem; color: var(--quiet); }
nav { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; padding: .5rem 0; border-block: 1px solid var(--faint); }
nav a { padding: .2rem 0; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
section { margin-top: 2.5rem; scroll-margin-top: 1rem; }
p { margin: .5rem 0; max-width: 48rem; }
.note, .file { color: var(--quiet); font-size: .875rem; line-height: 1.45; }
.warning { padding: .6rem .9rem; border-left: 4px solid #d4a017; background: var(--card); }
.headline { margin: 0; font-size: 3.25rem; font-weight: 700; line-height: 1.1; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }
.columns > * { min-width: 0; }
.scroll + .charts { margin-top: 1.25rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; }
.chart { min-width: 0; padding: .9rem 1rem .6rem; border: 1px solid var(--faint); border-radius: .5rem; }
.chart img { display: block; width: 100%; max-width: 34rem; margin: .4rem auto 0; }
.chart.natural img { width: auto; max-width: 100%; }
.chart .scroll img { min-width: 26rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: top; }
thead th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.numbers td { white-space: nowrap; }
.numbers thead th { white-space: normal; vertical-align: bottom; }
td { min-width: 4rem; overflow-wrap: anywhere; }
code, pre { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .5rem 0; padding: .75rem 1rem; overflow-x: auto; border-radius: .5rem; background: var(--card); }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); }
.bars { columns: 19rem; column-gap: 2.5rem; margin: 0; padding: 0; list-style: none; }
.bars li {
  display: grid; grid-template-columns: minmax(0, min(var(--name), 40%)) 1fr 4rem;
  gap: .6rem; align-items: center; break-inside: avoid;
}
.bars .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars .track { height: .7rem; border-radius: .2rem; background: var(--card); outline: 1px solid var(--faint); }
.bars .fill { display: block; height: 100%; border-radius: .2rem; background: var(--bar); }
.bars .value { text-align: right; font-variant-numeric: tabular-nums; font-size: .875rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: 1rem .75rem; }
.gallery .file { font-size: .75rem; }
.gallery figcaption { margin-top: .3rem; font-size: .8125rem; line-height: 1.35; overflow-wrap: anywhere; }
.picture { display: block; width: 6rem; height: auto; border-radius: .25rem; background: var(--card); }
.pixels { image-rendering: pixelated; }
.strip { display: block; margin: .1rem 0; }
.views th { position: sticky; left: 0; padding-right: .75rem; background: var(--page); vertical-align: middle; }
.views th, .views td { border: 0; padding-block: .1rem; }
.targets th { width: 8rem; font-weight: 400; font-size: .8125rem; line-height: 1.35; overflow-wrap: anywhere; }
.targets figcaption { margin-top: .3rem; }
.right { color: var(--good); }
.wrong { color: var(--bad); }
footer {
  margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--faint); color: var(--quiet); font-size: .875rem;
}
"""
