"""/metrics as the Python client of Prometheus parses it, in both formats. Usage: metrics.py PORT"""

import sys
import urllib.request

import prometheus_client.openmetrics.parser as openmetrics
import prometheus_client.parser as prometheus


def get(port, accept):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


def check(families):
    families = {family.name: family for family in families}
    for name in "olivia_requests", "olivia_hits", "olivia_slow_requests":
        assert families[name].type == "counter", name
    for name in "olivia_request_seconds", "olivia_request_work_seconds", "olivia_loop_iteration_seconds":
        family = families[name]
        assert family.type == "histogram" and family.documentation, name
        counts = {}
        for sample in family.samples:
            if sample.name == name + "_bucket":
                counts.setdefault(sample.labels.get("class"), []).append(sample.value)
        # The parser of OpenMetrics has checked it too.
        assert all(count == sorted(count) for count in counts.values()), name
    classes = {sample.labels.get("class") for sample in families["olivia_request_seconds"].samples}
    assert classes == {"read", "lookup", "write", "scan", "other"}, classes
    assert families["olivia_loop_busy_ratio"].samples[0].value <= 1
    return len(families)


def main():
    port = sys.argv[1]
    kind, text = get(port, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text"), kind
    count = check(openmetrics.text_string_to_metric_families(text))
    kind, text = get(port, "text/plain")
    assert kind.startswith("text/plain"), kind
    assert check(prometheus.text_string_to_metric_families(text)) == count
    print(f"metrics: {count} families in both formats")


main()
