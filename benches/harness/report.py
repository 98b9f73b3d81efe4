"""The report of a run: benches/results.json, and the tables and pictures in README.md and docs/performance.md."""

import json
from statistics import median

from harness.databases import ENGINES
from harness.files import BENCHES, ROOT, replace
from harness.load import CLIENTS, LIMIT

RESULTS = BENCHES / "results.json"
README = ROOT / "README.md"
PAGE = ROOT / "docs/performance.md"
PICTURES = ROOT / "docs/pictures"
# The share of the processors that other programs may use: interrupts and this script need a few hundredths.
QUIET = 0.05


def shown(figure, digits=0):
    return "–" if figure is None else f"{figure:,.{digits}f}"


def ranked(results):
    return sorted(results["contenders"].items(), key=lambda item: -item[1]["requests_per_second"])


def conditions(results):
    """The sentence above a table: hardware, versions and amount of work."""
    about = results["machine"].copy()
    processors, model = about.pop("processors"), about.pop("model")
    versions = ", ".join(f"{name} {version}" for name, version in about.items())
    return (f"{processors} processors ({model}) shared by clients, service and database; {versions}. "
            f"{results['users']:,} users, pages of {LIMIT}; medians of {results['rounds']} rounds of "
            f"{results['seconds']} s." + disturbance(results))


def disturbance(results):
    """A warning if other programs used the processors."""
    shares = [figures.get("others_cpu_share") for figures in results["contenders"].values()]
    others = median(share for share in shares if share is not None)
    if others <= QUIET:
        return ""
    return f" **Other programs used {others:.0%} of the processors, so these figures are not reliable.**"


def table(results):
    lines = ["| | requests/s | CPU µs: app | CPU µs: database | p50 ms | p99 ms | memory MB | first response ms |",
             "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for label, figures in ranked(results):
        def scaled(name, factor, digits):
            return shown(figures[name] * factor if name in figures else None, digits)
        name = f"**{label}**" if label == "roster" else label
        database = shown(figures["database_cpu_us"], 1) if figures["database_cpu_us"] > 0.5 else "–"
        cells = (name, shown(figures["requests_per_second"]), shown(figures["app_cpu_us"], 1), database,
                 scaled("p50_us", 1e-3, 2), scaled("p99_us", 1e-3, 2), scaled("pss_bytes", 1e-6, 1),
                 scaled("first_answer_ms", 1, 0))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio_table(results):
    lines = ["| ratio | must be | is | |", "|---|--:|--:|---|"]
    for ratio in results["ratios"]:
        outcome = {True: "holds", False: "**does not hold**", None: ""}[ratio["holds"]]
        lines.append(f"| {ratio['ratio']} | {ratio['must_be']} | {ratio['is']} | {outcome} |")
    calls = sorted(results["system_calls"].items(), key=lambda item: -item[1])
    lines += ["", "System calls per request: " + ", ".join(f"{count:.2f} `{name}`" for name, count in calls) + "."]
    return "\n".join(lines)


def plot(engine, results):
    """An SVG with two bars for each contender: requests per second, and processor time per request."""
    rows = ranked(results)
    fastest = max(figures["requests_per_second"] for _, figures in rows)
    most_cpu = max(figures["app_cpu_us"] + figures["database_cpu_us"] for _, figures in rows)
    height, top, left, width, second = 26, 58, 250, 190, 530
    parts = []

    def bar(x, y, length, kind):
        return f'<rect x="{x:.1f}" y="{y + 1}" width="{length:.1f}" height="18" class="{kind}"/>'

    for number, (label, figures) in enumerate(rows):
        y = top + number * height
        kind = "ours" if label.startswith("roster") else "theirs"
        rate = figures["requests_per_second"]
        app, database = figures["app_cpu_us"], figures["database_cpu_us"]
        length, app_length, database_length = (
            rate / fastest * width, app / most_cpu * width, database / most_cpu * width)
        parts += [
            f'<text x="{left - 10}" y="{y + 14}" text-anchor="end" class="{kind}-name">{label}</text>',
            bar(left, y, length, kind),
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">{rate:,.0f}</text>',
            bar(second, y, app_length, kind),
            bar(second + app_length, y, database_length, "database"),
            f'<text x="{second + app_length + database_length + 6:.1f}" y="{y + 14}">{app + database:,.0f}</text>',
        ]
    bottom = top + len(rows) * height + 16
    load = f"{results['users']:,} users, pages of {LIMIT} from random positions, {CLIENTS} clients"
    # A browser applies the media query to an embedded SVG too.
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {bottom + 12}" role="img">
<title>Requests per second and processor time per request, on {engine}</title>
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }}
.head {{ font-weight: 600 }}
.note {{ font-size: 11px }}
.ours-name {{ font-weight: 600 }}
.ours {{ fill: #b7410e }}
.theirs {{ fill: #6e7f91 }}
.database {{ fill: #aab7c4 }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .ours {{ fill: #e8743b }}
  .theirs {{ fill: #8596a8 }}
  .database {{ fill: #4d5a68 }}
}}
</style>
<text x="{left}" y="24" class="head">requests per second</text>
<text x="{second}" y="24" class="head">CPU µs per request</text>
<text x="{left}" y="42" class="note">longer is better</text>
<text x="{second}" y="42" class="note">shorter is better; pale: the database</text>
{chr(10).join(parts)}
<text x="{left}" y="{bottom}" class="note">{engine}, {load}</text>
</svg>
"""


def write(results):
    replace(RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    sections = []
    for name, engine in ENGINES.items():
        if name in results:
            picture = PICTURES / f"performance-{name}.svg"
            replace(picture, plot(engine.name, results[name]))
            caption = f"Requests per second and processor time per request, on {engine.name}"
            about = [conditions(results[name]), table(results[name])]
            if name == "postgres":
                write_between(README, [f"![{caption}](docs/pictures/{picture.name})", *about])
            sections += [f"### {engine.name}", f"![{caption}](pictures/{picture.name})", *about,
                         ratio_table(results[name])]
    write_between(PAGE, sections)


def write_between(page, sections):
    """Replaces the part of a page between the two marks."""
    begin, end = "<!-- written by benches/run -->", "<!-- until here -->"
    before, _, rest = page.read_text().partition(begin)
    replace(page, "\n\n".join([before + begin, *sections, end + rest.partition(end)[2]]))
