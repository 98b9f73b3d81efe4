"""The measurement of all contenders on one engine, in rounds whose median is the result."""

import os
import platform
import re
import signal
import subprocess
import time
from pathlib import Path
from statistics import median

from harness.contenders import CONNECTIONS, build, peers, roster
from harness.databases import database
from harness.load import LIMIT, PAGE, first_response, measured_load, page, pages_of_1000, pgbench, wrk
from harness.processes import command, scratch, stop

WARM_UP = 2
# The service is measured with these numbers of connections, too.
FEW_AND_MANY = 2, 16
# Pages of 1,000 users a second, beside which the service is measured, too.
LARGE_PAGES = 200
BESIDE_LARGE_PAGES = f"roster, beside {LARGE_PAGES} pages of 1,000"


def all_ids(options):
    """The lowest and highest cursor of a full page."""
    return 0, options.users - LIMIT - 1


def measure(contender, engine, options):
    """One round of one contender. Returns figures by name."""
    process, seconds = first_response(contender)
    wrk(PAGE, contender.cursor, all_ids(options), WARM_UP)
    figures = {contender.name: measured_load(
        PAGE, contender.cursor, all_ids(options), options.seconds, process, engine.process)}
    figures[contender.name]["first_answer_ms"] = seconds * 1000
    deep = options.users * 9 // 10
    page(contender, deep)
    if contender.name == "roster" or options.build:
        figures[f"{contender.name}, /livez"] = measured_load(
            "/livez", "number", (0, 0), options.seconds, process, engine.process)
    if options.build:
        figures[f"{contender.name}, one client"] = measured_load(
            PAGE, contender.cursor, all_ids(options), options.seconds, process, engine.process, clients=1)
    if contender.name == "roster":
        pages = [wrk(PAGE, "cursor", (id, id), max(1, options.seconds // 2), clients=1)["p50_us"] for id in (0, deep)]
        figures["roster"]["depth"] = pages[1] / pages[0]
        with pages_of_1000(LARGE_PAGES):
            figures[BESIDE_LARGE_PAGES] = measured_load(
                PAGE, contender.cursor, all_ids(options), options.seconds, process, engine.process)
    stop(process)
    return figures


def page_script(options):
    """The script of pgbench: a page for each statement, as the upper limit of PostgreSQL."""
    return (f"\\set after random(0, {all_ids(options)[1]})\n\\set limit {LIMIT}\n"
            "SELECT id, username, email FROM users WHERE id > :after ORDER BY id LIMIT :limit;\n")


def system_calls(contender, options):
    """The number of each system call per request, by strace, with 16 clients."""
    process, _ = first_response(contender)
    wrk(PAGE, contender.cursor, all_ids(options), WARM_UP, clients=16)
    output = scratch / "strace"
    tracer = subprocess.Popen(("strace", "--follow-forks", "--summary-only", f"--attach={process.pid}",
                               f"--output={output}"), stderr=subprocess.DEVNULL)
    time.sleep(1)
    requests = wrk(PAGE, contender.cursor, all_ids(options), options.seconds, clients=16)["requests"]
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    stop(process)
    # The columns: share, seconds, µs per call, calls, errors (may be empty), and the name.
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", output.read_text(), re.M)
    calls = {name: round(int(count) / requests, 3) for count, name in rows if name != "total"}
    return {name: count for name, count in calls.items() if count >= 0.005}


def median_of(rounds):
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}


def measure_engine(name, options):
    """All rounds of all contenders on one engine. Returns what benches/results.json contains for it."""
    print(f"== {name}: a database of {options.users} users", flush=True)
    with database(name, options.users) as engine:
        ours = roster(engine.url)
        builds = [build(engine.url, description) for description in options.build]
        contenders = [lambda contender=contender: measure(contender, engine, options)
                      for contender in builds or (ours, *peers(engine))]
        if name == "postgres" and not builds:
            variants = [roster(engine.socket_url, "roster, Unix socket")]
            variants += [roster(engine.url, f"roster, {count} connections", DATABASE_MAX_CONNECTIONS=str(count))
                         for count in FEW_AND_MANY]
            contenders += [lambda variant=variant: measure(variant, engine, options) for variant in variants]
            for what, host in ("TCP", "127.0.0.1"), ("Unix socket", engine.folder):
                contenders.append(lambda what=what, host=host: {
                    f"pgbench, {what}": pgbench(engine, host, page_script(options), CONNECTIONS, options.seconds)})

        rounds = {}
        for number in range(options.rounds):
            first = number * len(contenders) // options.rounds
            for contender in contenders[first:] + contenders[:first]:
                for label, figures in contender().items():
                    rounds.setdefault(label, []).append(figures)
                    print(f"{number + 1} {label:<40}{figures['requests_per_second']:9.0f}/s"
                          f"{figures['app_cpu_us']:9.1f} µs{figures['database_cpu_us']:9.1f} µs", flush=True)
        versions = {engine.name: engine.version}
        if name == "postgres" and not builds:
            versions["Go"] = command("go", "env", "GOVERSION").strip()[2:]
        results = {
            "machine": machine() | versions,
            "users": options.users, "rounds": options.rounds, "seconds": options.seconds,
            "contenders": {label: median_of(figures) for label, figures in rounds.items()},
        }
        if not builds:
            results["system_calls"] = system_calls(ours, options)
            results["ratios"] = ratios(results)
        return results


def ratios(results):
    """The goals of the project: each ratio with its limit, if it has one, and whether it holds."""
    contenders = results["contenders"]
    ours = contenders["roster"]

    def best(peer, figure, choose):
        return choose(figures[figure] for label, figures in contenders.items() if label.startswith(peer))

    found = [
        ("`sendto` per request at 16 clients", results["system_calls"].get("sendto", 0), "≤", 2.05),
        (f"p50 of the page behind row {results['users'] * 9 // 10:,} ÷ p50 of page 1", ours["depth"], "≤", 1.3),
        (f"p99 beside {LARGE_PAGES} pages of 1,000 users a second ÷ p99 without",
         contenders[BESIDE_LARGE_PAGES]["p99_us"] / ours["p99_us"], "≤", 2),
        ("first response after exec, ms", ours["first_answer_ms"], "≤", 20),
        ("memory at 32 clients, MB", ours["pss_bytes"] / 1e6, "≤", 20 if "SQLite" in results["machine"] else 7),
    ]
    if pgbench := contenders.get("pgbench, TCP"):
        livez = contenders["roster, /livez"]
        found.append(("CPU of the application ÷ that of `/livez`", ours["app_cpu_us"] / livez["app_cpu_us"], "≤", 2.1))
        found.append(("requests per second ÷ pgbench over TCP",
                      ours["requests_per_second"] / pgbench["requests_per_second"], "≥", 0.8))
        few, many = (contenders[f"roster, {count} connections"]["requests_per_second"] for count in FEW_AND_MANY)
        found.append(("requests per second with {} connections ÷ with {}".format(*FEW_AND_MANY), few / many, "≥", 0.95))
        total = [figures["app_cpu_us"] + figures["database_cpu_us"] for figures in (ours, pgbench)]
        found.append(("CPU with the database ÷ that of pgbench over TCP", total[0] / total[1], None, None))
        for peer, cpu_factor, rate_factor in ("Fastify", 3, 2.2), ("Flask", 17, 10):
            found.append((f"{peer}'s best CPU of the application ÷ ours",
                          best(peer, "app_cpu_us", min) / ours["app_cpu_us"], "≥", cpu_factor))
            found.append((f"requests per second ÷ {peer}'s best",
                          ours["requests_per_second"] / best(peer, "requests_per_second", max), "≥", rate_factor))
        peer, figures = max(((label, figures) for label, figures in contenders.items()
                             if not label.startswith(("roster", "pgbench"))),
                            key=lambda item: item[1]["requests_per_second"])
        found.append((f"requests per second ÷ those of the best peer ({peer})",
                      ours["requests_per_second"] / figures["requests_per_second"], "≥", 1.35))
        found.append(("CPU of that peer with the database ÷ ours",
                      (figures["app_cpu_us"] + figures["database_cpu_us"]) / total[0], "≥", 1.25))
    if inline := contenders.get("a blocking driver inline"):
        found.append(("requests per second ÷ those of a blocking driver inline",
                      ours["requests_per_second"] / inline["requests_per_second"], "≥", 1))
    return [{"ratio": ratio, "is": round(value, 2), **goal(value, sign, bound)} for ratio, value, sign, bound in found]


def goal(value, sign, bound):
    """The limit of a ratio, and whether it holds. A ratio without a limit is only reported."""
    if not sign:
        return {"must_be": "–", "holds": None}
    return {"must_be": f"{sign} {bound}", "holds": value <= bound if sign == "≤" else value >= bound}


def machine():
    """The hardware and the versions, without the name of the machine."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "processors": len(os.sched_getaffinity(0)), "model": model[1] if model else platform.machine(),
        "Linux": re.match(r"[\d.]+", platform.release())[0].rstrip("."),
        "Rust": command("rustc", "--version").split()[1],
        "Python": platform.python_version(), "Node.js": command("node", "--version").strip()[1:],
    }
