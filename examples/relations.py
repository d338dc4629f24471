#!/usr/bin/env python3
"""Writes relations.conllu: 300 sentences of a seeded grammar and the 100 of relations.txt, with the tree of each.

usage: examples/relations.py [--check]    --check: fails where relations.conllu is not what this writes

Modifier and noun (amod), subject and verb (nsubj), verb and object (obj, obl) stand 1 to 8 words apart, so mixed that no
distance finds half of the partners. Punctuation hangs on the root.

relations.txt has a sentence a line. Each word carries a code, "cat.s" or "cat.s.sat": its part of speech with its
relation (CODES), and its head where that is not the nearest word that fits. Of equal words the nearest is meant.

Both files are CC0 1.0: no rights reserved.
"""
import collections
import pathlib
import random

import conllu

FOLDER = pathlib.Path(__file__).resolve().parent

# code: part of speech, relation, where the head is
CODES = {
    "d": ("DET", "det", "next noun"), "a": ("ADJ", "amod", "next noun"), "c": ("ADP", "case", "next noun"),
    "g": ("PRON", "nmod:poss", "next noun"), "G": ("NOUN", "nmod:poss", "next noun"), "'": ("PART", "case", "last noun"),
    "z": ("NOUN", "compound", "next noun"), "m": ("NUM", "nummod", "next noun"),
    "n": ("NOUN", "nmod", "last noun"), "np": ("PRON", "nmod", "last noun"), "A": ("NOUN", "appos", "last noun"),
    "s": ("NOUN", "nsubj", "next verb"), "S": ("PRON", "nsubj", "next verb"), "u": ("NOUN", "nsubj:pass", "next verb"),
    "o": ("NOUN", "obj", "last verb"), "O": ("PRON", "obj", "last verb"), "R": ("PRON", "obj", "next verb"),
    "i": ("NOUN", "iobj", "last verb"), "I": ("PRON", "iobj", "last verb"), "b": ("NOUN", "obl", "last verb"),
    "x": ("AUX", "aux", "next verb"), "X": ("AUX", "aux:pass", "next verb"), "D": ("INTJ", "discourse", "next verb"),
    "v": ("ADV", "advmod", "next verb"), "V": ("ADV", "advmod", "last verb"), "e": ("ADV", "advmod", "next word"),
    "r": ("VERB", "root", ""), "l": ("VERB", "acl:relcl", "last noun"), "t": ("VERB", "acl", "last noun"),
    "w": ("VERB", "advcl", "last verb"), "wa": ("ADJ", "advcl", "last verb"), "y": ("VERB", "xcomp", "last verb"),
    "Y": ("VERB", "ccomp", "last verb"), "j": ("VERB", "conj", "last verb"), "k": ("ADJ", "conj", "last adjective"),
    "kv": ("ADV", "conj", "last word"), "K": ("NOUN", "conj", "last noun"), "M": ("SCONJ", "mark", "next verb"),
    "pm": ("PART", "mark", "next verb"), "&": ("CCONJ", "cc", "next conjunct"), ".": ("PUNCT", "punct", "root"),
}
PLAIN = {}  # the code of words that carry none
for code, words in {
        "d": "a an the this these some every no", "&": "and but or", ".": ". , ?", "'": "'s",
        "c": "above across after around at behind between by for from in into near of on over through to under with within",
        "x": "has have had", "m": "two", "M": "because"}.items():
    PLAIN.update(dict.fromkeys(words.split(), code))
FITS = {
    "noun": lambda code: CODES[code][0] in ("NOUN", "PROPN") and code != "z",
    "verb": lambda code: CODES[code][0] == "VERB" or code == "r",
    "adjective": lambda code: CODES[code][0] == "ADJ",
    "word": lambda code: code != ".",
    "conjunct": lambda code: CODES[code][1] == "conj",
    "root": lambda code: code == "r",
}


def parse(line):
    """The words of a sentence: form, part of speech, index of the head (-1: the root), relation."""
    parts = [word.split(".") if word != "." else [".", "."] for word in line.split()]
    forms = [part[0] for part in parts]
    codes = [part[1] if len(part) > 1 else PLAIN[part[0].lower()] for part in parts]

    def head_of(i):
        nearest = sorted((j for j in range(len(parts)) if j != i), key=lambda j: abs(j - i))
        if codes[i] == "r":
            return -1
        if len(parts[i]) > 2:
            return next(j for j in nearest if forms[j] == parts[i][2])
        way, _, what = CODES[codes[i]][2].rpartition(" ")
        return next(j for j in nearest if FITS[what](codes[j]) and (way != "next" or j > i) and
                    (way != "last" or j < i) and
                    not (codes[i] == "c" and codes[j] == "G") and  # what a preposition stands before is not the owner
                    not (codes[j] in ("l", "t") and head_of(j) == i))  # a clause about a noun has its own subject

    return [(form, CODES[code][0], head_of(i), CODES[code][1]) for i, (form, code) in enumerate(zip(forms, codes))]


class Grammar:
    """Sentences in the manner of "The black cat sat on the mat."."""
    BEINGS = "cat dog farmer teacher child horse soldier painter sailor doctor neighbour student baker lawyer".split()
    THINGS = "mat chair table bridge river field roof road box letter picture house basket clock coat boat".split()
    MATERIALS = "stone garden kitchen city paper winter".split()
    PLACES = "village market church harbour forest station castle valley".split()
    SETTLED = "sat slept stood waited danced played walked worked rested sang".split()
    DONE = "saw found painted moved carried wanted sold kept noticed hated".split()
    TOWARDS = "on under near behind".split()
    MANNER = "quietly often slowly rarely suddenly gladly always".split()
    QUALITIES = "black old young small big tired hungry quiet angry brown heavy strange poor green".split()

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, words):
        return words[int(self.random.random() * len(words))]

    def some(self, words, count):
        words = list(words)
        return [words.pop(int(self.random.random() * len(words))) for _ in range(count)]

    def noun(self, noun, code, head, before):
        """An article, `before` words of adjectives, and the noun."""
        q = self.some(self.QUALITIES, 4)
        a, k = [word + ".a" for word in q], [word + ".k" for word in q]
        very = "very.e"
        adjectives = [
            [], [a[0]], [a[0], self.pick(self.MATERIALS) + ".z" if self.random.random() < 0.7 else a[1]], [a[0], "and", k[1]],
            [a[0], "but", very, k[1]], [a[0], ",", k[1], "and", k[2]], [a[0], ",", k[1], "and", very, k[2]],
            [a[0], ",", very, k[1], "and", very, k[2]], [a[0], ",", k[1], ",", k[2], "and", very, k[3]]][before]
        return ["the"] + adjectives + [f"{noun}.{code}.{head}"]

    def sentence(self):
        subject, other = self.some(self.BEINGS, 2)
        thing, second = self.some(self.THINGS, 2)
        takes_object = self.random.random() < 0.5
        verb = self.pick(self.DONE if takes_object else self.SETTLED)
        manner = self.pick(self.MANNER) + ".v"
        place = self.pick(self.PLACES)
        chased = self.pick("chased feared followed knew".split())
        between = [
            [], [manner], ["had.x", manner], ["from", "the", place + ".n"], ["from", "the", place + ".n", manner],
            [f"that.R.{chased}", "the", f"{other}.s.{chased}", f"{chased}.l.{subject}"],
            [f"who.S.{chased}", f"{chased}.l.{subject}", "the", f"{other}.o.{chased}", manner],
            ["from", "the", place + ".n", "near", "the", f"{second}.n.{place}"]]
        between = between[self.pick([0, 1, 2, 3, 3, 4, 5, 6, 7])]
        words = self.noun(subject, "s", verb, self.pick([0, 1, 2, 2, 3, 4, 5, 6, 7, 8]))
        words += between + [verb + ".r"]
        owner = self.random.random() < 0.25
        if not takes_object:
            words += ([self.pick(self.MANNER) + ".V"] if self.random.random() < 0.3 and not owner else [])
            words += [self.pick(self.TOWARDS)]
        if owner:
            words += ["the", f"{self.pick([b for b in self.BEINGS if b not in (subject, other)])}.G.{thing}", "'s"]
        what = self.noun(thing, "o" if takes_object else "b", verb, self.pick([0, 0, 1, 1, 2, 2, 3] if owner else [0, 0, 1, 2, 2, 3, 4]))
        words += what[1:] if owner else what
        words[0] = words[0].capitalize()
        return " ".join(words + ["."])


def sentences():
    """The generated ones and those by hand."""
    grammar = Grammar(1)
    by_hand = (FOLDER / "relations.txt").read_text().splitlines()
    return {"generated": [parse(grammar.sentence()) for _ in range(300)], "by-hand": [parse(line) for line in by_hand]}


def distances(sentences):
    """How often each distance from a word to its head occurs, for each of the three relations."""
    counts = {"amod": collections.Counter(), "nsubj": collections.Counter(), "obj+obl": collections.Counter()}
    for words in sentences:
        for i, (_, _, head, relation) in enumerate(words):
            for name, counter in counts.items():
                if relation.split(":")[0] in name.split("+"):
                    counter[head - i] += 1
    return counts


def main():
    lines = ["# " + line for line in __doc__.splitlines()[-1:] + ["Written by relations.py."]]
    found = sentences()
    for kind, some in found.items():
        for number, words in enumerate(some, 1):
            lines += conllu.sentence(f"{kind}-{number}", words)
    conllu.save(FOLDER / "relations.conllu", lines)
    for name, counter in distances(words for some in found.values() for words in some).items():
        print(f"{name}: {sum(counter.values())} pairs; head - word:",
              "  ".join(f"{d:+d} {n}" for d, n in sorted(counter.items())))


main()
