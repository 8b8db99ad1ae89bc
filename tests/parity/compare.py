"""Differences between two brokers' answers, those that are meant, and the recorded form of Kafka's."""
import fnmatch
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
RECORDED = HERE / "recorded"
MISSING = "(absent)"


# ---- recorded answers: one file an API, one line for the versions of a scenario that answer alike


def save(results, versions):
    RECORDED.mkdir(exist_ok=True)
    for old in RECORDED.glob("*.json"):
        old.unlink()
    by_api = {}
    for (api, name, version), answers in results.items():
        by_api.setdefault(api, {}).setdefault(name, []).append((version, answers))
    for api, scenarios in by_api.items():
        lines = []
        for name, answered in scenarios.items():
            groups = []
            for version, answers in sorted(answered, key=lambda each: each[0]):
                if groups and groups[-1][2] == answers and groups[-1][1] == version - 1:
                    groups[-1][1] = version
                else:
                    groups.append([version, version, answers])
            lines += [json.dumps([name, low, high, answers], separators=(",", ":")) for low, high, answers in groups]
        (RECORDED / f"{api}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    (RECORDED / "versions.json").write_text(json.dumps(versions, separators=(",", ":"), sort_keys=True) + "\n")


def load():
    """(results, versions) as recorded."""
    results = {}
    for path in sorted(RECORDED.glob("*.json")):
        if path.stem != "versions":
            for name, low, high, answers in json.loads(path.read_text()):
                for version in range(low, high + 1):
                    results[path.stem, name, version] = answers
    versions = json.loads((RECORDED / "versions.json").read_text())
    return results, {api: tuple(each) for api, each in versions.items()}


def plain_results(results):
    """As JSON would give them back, so that recorded and fresh answers compare."""
    return {key: json.loads(json.dumps(answers)) for key, answers in results.items()}


# ---- differences


def differences(kafka, other):
    """[(path, kafka's value, the other's)] of two answer lists; a path is "label/field/key/…"."""
    out = []
    for index in range(max(len(kafka), len(other))):
        left = kafka[index] if index < len(kafka) else None
        right = other[index] if index < len(other) else None
        label = (left or right)[0]
        if left and right and left[0] != right[0]:
            out.append((label, left, right))
            break
        walk(label, left[1] if left else MISSING, right[1] if right else MISSING, out)
    return out


def walk(path, left, right, out):
    if left == right:
        return
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(set(left) | set(right)):
            walk(f"{path}/{key}", left.get(key, MISSING), right.get(key, MISSING), out)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (a, b) in enumerate(zip(left, right)):
            walk(f"{path}/{index}", a, b, out)
    else:
        out.append((path, left, right))


class Meant:
    """The list of differences that are meant: meant.json, each with its reason. `scenario`, `path`, `kafka` and `highwater` are
    shell patterns, and match anything where they are left out; `says` is for docs/api-support.md."""

    def __init__(self):
        self.entries = json.loads((HERE / "meant.json").read_text())
        self.seen = [0] * len(self.entries)

    def find(self, api, name, version, path, kafka, other):
        for index, entry in enumerate(self.entries):
            low, high = entry.get("versions", [0, 32767])
            if (fnmatch.fnmatchcase(api, entry["api"]) and fnmatch.fnmatchcase(name, entry.get("scenario", "*"))
                    and low <= version <= high and fnmatch.fnmatchcase(path, entry.get("path", "*"))
                    and matches(entry, "kafka", kafka) and matches(entry, "highwater", other)):
                self.seen[index] += 1
                return entry
        return None


def matches(entry, side, value):
    return side not in entry or fnmatch.fnmatchcase(json.dumps(value) if not isinstance(value, str) else value, entry[side])
