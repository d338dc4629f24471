"""How the scripts of this folder write a CoNLL-U file, or check that it is what they write."""
import sys


def sentence(name, words):
    """The lines of a sentence. A word: form, part of speech, index of the head (-1: the root), relation."""
    glued = [i + 1 < len(words) and words[i + 1][0] in (".", ",", "?", "'s", "n't") for i in range(len(words))]
    text = "".join(word[0] + ("" if glue else " ") for word, glue in zip(words, glued)).strip()
    lines = [f"# sent_id = {name}", f"# text = {text}"]
    for i, ((form, pos, head, relation), glue) in enumerate(zip(words, glued), 1):
        misc = "SpaceAfter=No" if glue else "_"
        lines.append("\t".join([str(i), form, "_", pos, "_", "_", str(head + 1), relation, "_", misc]))
    return lines + [""]


def save(file, lines):
    text = "\n".join(lines) + "\n"
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if file.read_text() == text else f"{file} is not what {sys.argv[0]} writes")
    file.write_text(text)
