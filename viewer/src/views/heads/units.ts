// What the two columns of links are made of: tokens, or words; with special tokens, or without and renormalised.
// Nothing here knows the page.

export interface Unit {
  text: string;
  /** Tokens [begin, end). */
  begin: number;
  end: number;
}

/** `wordOf` holds each token's word, -1 for a special token; empty where the trace knows no words. */
export function unitsOf(tokens: readonly string[], wordOf: readonly number[], words: readonly { text: string }[], asWords: boolean, hideSpecial: boolean): Unit[] {
  const units: Unit[] = [];
  tokens.forEach((text, place) => {
    const word = wordOf[place] ?? place;
    if (word < 0) {
      if (!hideSpecial) units.push({ text, begin: place, end: place + 1 });
      return;
    }
    const last = units[units.length - 1];
    if (asWords && wordOf.length > 0 && last && last.end === place && wordOf[last.begin] === word) last.end = place + 1;
    else units.push({ text: (asWords && words[word]?.text) || text, begin: place, end: place + 1 });
  });
  return units;
}

/**
 * Weights from one unit to all: the mean over its tokens of the sum over the other's tokens.
 * rows: weights of all keys, from token `first` on. Renormalised, the kept units' weights add up to 1.
 */
export function unitRow(unit: Unit, units: readonly Unit[], rows: ArrayLike<number>, keys: number, first: number, renormalise: boolean): Float64Array {
  const row = new Float64Array(units.length);
  for (let query = unit.begin; query < unit.end; ++query) {
    const at = (query - first) * keys;
    units.forEach(({ begin, end }, place) => {
      for (let key = begin; key < end; ++key) row[place]! += rows[at + key]! / (unit.end - unit.begin);
    });
  }
  if (!renormalise) return row;
  const sum = row.reduce((total, value) => total + value, 0);
  return sum > 0 ? row.map((value) => value / sum) : row;
}

export interface Link {
  query: number;
  key: number;
  weight: number;
}

/** The largest weights of a row; of equals the first key. */
export function strongest(query: number, row: Float64Array, count: number): Link[] {
  const found: Link[] = [];
  row.forEach((weight, key) => {
    if (weight <= 0 || (found.length === count && weight <= found[count - 1]!.weight)) return;
    let place = found.length;
    while (place > 0 && found[place - 1]!.weight < weight) --place;
    found.splice(place, 0, { query, key, weight });
    if (found.length > count) found.pop();
  });
  return found;
}
