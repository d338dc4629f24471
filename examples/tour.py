#!/usr/bin/env python3
"""Writes tour.conllu: "The black cat sat on the mat." and 59 sentences in its manner, with the tree of each.

usage: examples/tour.py [--check]    --check: fails where tour.conllu is not what this writes

Each sentence has the three links of the first: a modifier and its noun (amod:link), the subject and its verb
(nsubj:link), the verb and the place (obl:link). They stand 1 to 4, 1 to 5 and 3 to 6 words apart, every distance about
as often as the others: no fixed distance finds half of them. Other nouns, verbs and adjectives stand between.

tour.conllu is CC0 1.0: no rights reserved.
"""
import itertools
import pathlib
import random

import conllu

FILE = pathlib.Path(__file__).resolve().parent / "tour.conllu"

BEINGS = "cat dog child farmer teacher horse sailor neighbour student baker".split()
DONE = "sat slept waited stood worked rested".split()  # all are their own participles
PLACES = "mat chair bench carpet bridge roof boat wall".split()
QUALITIES = "black old small tired hungry quiet brown young".split()
QUALITIES_OF_PLACES = "warm wooden green broad clean".split()
HOMES = "village city garden harbour farm".split()
SEEN = "bird nurse painter boy goose".split()
MANNER = "quietly often rarely gladly always".split()
CHASED = "followed knew feared heard".split()
OWNERS = "doctor sister lawyer driver".split()

# A word is its form, part of speech, relation, and the form of its head; the root has none.


def modifiers(pick, noun, kind):
    first = second = pick(QUALITIES)
    while second == first:
        second = pick(QUALITIES)
    link = (first, "ADJ", "amod:link", noun)
    joined = (second, "ADJ", "conj", first)
    return [[link],
            [link, (pick(HOMES), "NOUN", "compound", noun)],
            [link, ("and", "CCONJ", "cc", second), joined],
            [link, ("but", "CCONJ", "cc", second), ("very", "ADV", "advmod", second), joined]][kind]


def between(pick, noun, verb, kind):
    manner = (pick(MANNER), "ADV", "advmod", verb)
    chased, seen, home = pick(CHASED), pick(SEEN), "street"
    return [[],
            [manner],
            [("had", "AUX", "aux", verb), manner],
            [("from", "ADP", "case", home), ("our", "PRON", "nmod:poss", home), (home, "NOUN", "nmod", noun)],
            [("that", "PRON", "nsubj", chased), (chased, "VERB", "acl:relcl", noun), ("a", "DET", "det", seen),
             (seen, "NOUN", "obj", chased)]][kind]


def place(pick, noun, verb, kind):
    quality, owner = pick(QUALITIES_OF_PLACES), pick(OWNERS)
    on, link = ("on", "ADP", "case", noun), (noun, "NOUN", "obl:link", verb)
    return [[on, ("the", "DET", "det", noun), link],
            [on, ("a", "DET", "det", noun), (quality, "ADJ", "amod", noun), link],
            [on, ("her", "PRON", "nmod:poss", owner), (owner, "NOUN", "nmod:poss", noun), ("'s", "PART", "case", owner),
             (quality, "ADJ", "amod", noun), link]][kind]


def sentences():
    chance = random.Random(1)
    pick = lambda words: words[int(chance.random() * len(words))]
    kinds = list(itertools.product(range(4), range(5), range(3)))
    for kind in kinds[:1] + sorted(kinds[1:], key=lambda _: chance.random()):
        first = kind == kinds[0]
        noun, verb, where = (words[0] if first else pick(words) for words in (BEINGS, DONE, PLACES))
        before = [("black", "ADJ", "amod:link", noun)] if first else modifiers(pick, noun, kind[0])
        yield ([("The", "DET", "det", noun)] + before + [(noun, "NOUN", "nsubj:link", verb)] +
               between(pick, noun, verb, kind[1]) + [(verb, "VERB", "root", None)] + place(pick, where, verb, kind[2]) +
               [(".", "PUNCT", "punct", verb)])


def main():
    lines = ["# CC0 1.0: no rights reserved.", "# Written by tour.py."]
    for number, words in enumerate(sentences(), 1):
        forms = [word[0] for word in words]
        assert all(forms.count(word[3]) == 1 for word in words if word[3]), forms
        lines += conllu.sentence(f"tour-{number}", [(form, pos, forms.index(head) if head else -1, relation)
                                                    for form, pos, relation, head in words])
    conllu.save(FILE, lines)


main()
