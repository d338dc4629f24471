/** A head's share of sentences, as it is written: "24 of 30 (80 %, 63 to 90 %)". */
export interface Share {
  head: string;
  right: number;
  of: number;
  percent: number;
  low: number;
  high: number;
}

const share = ({ right, of, percent, low, high }: Share): string =>
  `${right} of ${of} (${percent} %; 95 % interval ${low} to ${high} %)`;
const listed = (names: string[]): string => (names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)!}` : names[0] ?? "");

export const tour = {
  step: (now: number, all: number) => `${now} of ${all}`,
  back: "Back",
  next: "Next",
  keep: "Keep",
  done: "Done.",
  words: "Words",
  show: (view: string) => `Show it in ${view}`,
  list: "Steps",
  terms: {
    model: { name: "model", means: "a program that has learnt from much text to turn words into numbers. The one used here stands at the top of the page." },
    link: { name: "link", means: "two words that belong together, written first → second: the first looks for the second." },
    weight: { name: "weight", means: "the share of its attention that one word gives another, from 0 to 1." },
    token: { name: "token", means: "a piece of text that the model reads: mostly a word. [CLS] and [SEP] are marks that it puts at the ends." },
    head: { name: "head", means: "one way of looking: it has weights of its own from each word to all others." },
    layer: { name: "layer", means: "one round of looking. A model has several, each with several heads. 2.8 is layer 2, head 8; both are counted from 0." },
    value: { name: "value", means: "v for short: the numbers that a word hands on to those that look at it." },
    output: { name: "output", means: "what a word gets from a head: the values of the others, each times its weight, added up." },
    concatenation: { name: "concatenation", means: "writing numbers side by side, so that none is added to another." },
    distance: { name: "distance", means: "how many words further the second word of a link stands: +1 is the next one, −1 the one before." },
    interval: { name: "95 % interval", means: "so few sentences leave doubt. The interval holds the shares that fit these counts well." },
    query: { name: "query", means: "q for short: the numbers that say what a word looks for." },
    key: { name: "key", means: "k for short: the numbers that say what a word offers." },
    score: { name: "score", means: "how well a query fits a key, before softmax." },
    softmax: { name: "softmax", means: "makes weights of scores: all above 0, a row sums to 1, a larger score gets more." },
    d_model: { name: "d_model", means: "how many numbers stand for one token." },
    h: { name: "h", means: "num_heads in code: how many heads a layer has." },
    d_k: { name: "d_k", means: "how many numbers of a token one head works with: d_model / h." },
    parameter: { name: "parameter", means: "a number that the model has learnt." },
    rank: { name: "rank", means: "how many rows of a table are free; the others follow from them." },
    vector: { name: "vector", means: "the numbers that stand for a whole text." },
    similarity: { name: "similarity", means: "1 where two vectors point the same way, 0 where they have nothing in common (the cosine)." },
    subspace: { name: "subspace", means: "the part of a token's numbers that one head works with." },
  },
  study: {
    says: "Do several heads help? Small models with 1 to 16 heads were trained on sentences like this one.",
    link: "What came out",
  },
  steps: {
    three: {
      title: "Three things at once",
      text: (links: string[], chapters: boolean) => chapters
        ? ["To read “cat”, the model needs three other words. “Black” says which cat, “sat” says what it did, and “mat” says where.",
           `Three links hold the sentence together: ${listed(links)}.`]
        : [`We follow ${links.length === 1 ? "one link" : "these links"} through your sentence: ${listed(links)}. They are a guess: below the picture you can choose others.`],
      act: "Press each arc.",
      keep: "One word needs several others at once.",
    },
    row: {
      title: "One row sums to one",
      text: (word: string, head: string) => [
        `These bars are the weights of “${word}” in head ${head}, which stands in layer ${head.split(".")[0]!}: how much of its attention each token gets. Together they are 1, always.`,
        "Pull one up. The others have to shrink.",
      ],
      act: (a: string, c: string) => `Give 0.9 to “${a}”. Then try to give 0.9 to “${c}” too.`,
      keep: "What one word gets, another loses.",
    },
    sum: {
      title: "A sum forgets roles",
      text: (a: string, b: string, c: string) => [
        `Say that one head has to read both for “${b}”: half of “${a}” and half of “${c}”. Its output is 0.5 · v(${a}) + 0.5 · v(${c}).`,
        `Now let the two words change places. A sum is the same in any order, so nobody can tell which was which. Two heads of one layer look once each, and their outputs are concatenated.`,
      ],
      act: (a: string, c: string) => `Swap “${a}” and “${c}”.`,
      keep: "Concatenation keeps apart what a sum mixes: that is why there are several heads.",
    },
    readers: {
      title: "Who reads our links?",
      text: [
        "Each square is a head, each line a layer. The darker, the more weight it gives to the link.",
        "Some heads give much to any word at that distance. So we compare a head's weight with its own mean at the same distance, and outline the three that lie furthest above it.",
      ],
      act: "Press a link.",
      found: (link: string, head: string, weight: string, offset: string | null, mean: string) =>
        `${link}: head ${head} gives ${weight}${offset === null ? ", and no other pair has that distance" : `, and ${offset} to other words at that distance`}. The mean of all heads is ${mean}.`,
      heaviest: (head: string, weight: string, offset: string) =>
        `Head ${head} gives it most, ${weight}. But it gives ${offset} to other words at that distance, too.`,
      keep: (link: string, heads: string[]) =>
        `In this sentence ${link} gets most from the heads ${listed(heads)}, beyond what they give at that distance anyway.`,
    },
    grammar: {
      title: "Grammar, or only the next word?",
      text: (count: number) => [
        `One sentence proves nothing. Here are ${count} that say similar things in other words, with the links at several distances; you see a dozen.`,
        "A head is right where it gives the partner, the other word of the link, most weight. Beside it stands the best fixed distance: “always the word two further”, say. Heads are chosen on one half of the sentences and counted on the other.",
      ],
      act: "Choose another head, or add a sentence of your own.",
      reads: (link: string, heads: Share[], offset: string, percent: number) =>
        `${link}: ${heads.length === 1 ? `head ${heads[0]!.head} finds` : `heads ${listed(heads.map(({ head }) => head))} find`} it more often than the best distance (${offset}: ${percent} %). Head ${heads[0]!.head}: ${share(heads[0]!)}.`,
      none: (link: string, best: Share, offset: string, percent: number) =>
        `${link}: no head lies clearly above the best distance (${offset}: ${percent} %) in both halves. The first choice was ${best.head}: ${share(best)}.`,
      few: (link: string) => `${link}: this model sees too few of these pairs to say anything. A word in it sees only words before it.`,
      asNext: (found: Share, percent: number) =>
        `Head ${found.head}, which gives the first link most weight in your sentence, finds the noun in ${share(found)}. The next word is the noun in ${percent} %. So we cannot tell it from “always the next word”.`,
      aboveNext: (found: Share, percent: number) =>
        `Head ${found.head}, which gives the first link most weight in your sentence, finds the noun in ${share(found)}. The next word is the noun in ${percent} %. So it does not just take the next word.`,
      belowNext: (found: Share, percent: number) =>
        `Head ${found.head}, which gives the first link most weight in your sentence, finds the noun in ${share(found)}: less often than “always the next word” does (${percent} %).`,
      keep: "One sentence is an anecdote: test before you name a head.",
    },
    inside: {
      title: "Inside one head",
      text: (link: string, head: string, d: number) => [
        `This is how head ${head} comes to its weight for ${link}. The first word's query meets the second word's key: ${d} products, added up and scaled, are the score.`,
        "Softmax makes weights of the scores. The output is the mix of the values.",
      ],
      act: (left: string[]) => (left.length === 0 ? "Open any part again." : `Open in the line of parts: ${listed(left)}.`),
      keep: (d: number) => `${d} products, a softmax, a mix.`,
    },
    cut: {
      title: "Cut d_model",
      text: ["Every head works with its own slice of a token's numbers: d_k = d_model / h of them. With 512 numbers and 8 heads these are 64.", "But what if the numbers do not divide?"],
      act: "Set the number of heads to 7.",
      keep: (d: number, each: number, left: number) => `${d} = 7 · ${each} + ${left}: ${left === 0 ? "nothing is left over" : `${left === 1 ? "a number" : `${left} numbers`} of every token would be lost`}.`,
    },
    work: {
      title: "The same work",
      text: ["More heads, each with fewer numbers: the parameters and the multiplications stay the same. Only softmax grows, since each head has weights of its own. The times are measured now.", "Two limits stand beside it. The table of one head's scores has a rank of at most d_k (Bhojanapalli et al. 2020): with few numbers it cannot form every pattern. And Michel et al. 2019 found that many heads can be switched off: try it below, head by head."],
      act: "Drag the number of heads to 16.",
      keep: (times: string | null) => `Parameters and products stay, softmax grows${times === null ? "" : `; with 16 heads the clock showed ${times} times what it shows with one`}.`,
    },
    quiz: {
      title: "Check yourself",
      text: ["Five questions. Each answer comes with the picture that shows why.", "A subspace is what the chapter calls a head's slice."],
      act: (left: number) => (left === 0 ? "All five are answered." : left === 1 ? "One question is left." : `${left} questions are left.`),
      keep: "Many ways of looking at once, kept apart, at the price of one.",
    },
  },
};
