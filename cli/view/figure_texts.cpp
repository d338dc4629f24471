#include "view/figure_texts.hpp"

namespace manyheads::cli {
namespace {

constexpr FigureTexts kEnglish = {
    .point = '.',
    .links_of = "The sentence and its links",
    .best = "Best head",
    .weight = "Weight",
    .offset_mean = "Its mean at that distance",
    .mean = "Mean of all heads",
    .roles = {"says which one", "is what it did", "is where"},
    .row_of = "What “{}” gives in head {}",
    .sum = "Sum",
    .sum_one = "One head, {}: 0.5 · v({}) + 0.5 · v({})",
    .sum_two = "Two heads, {} and {}: side by side",
    .before = "before",
    .after = "after the swap",
    .change = "Largest change of a number: {}",
    .grid_caption = "The weight of each head on {}",
    .grid_note = "Down: layers. Across: heads. Outlined: the three furthest above their own mean at that distance.",
    .shares = "How often the partner is found: {}",
    .found = "{} of {}, {} %",
    .always = "Always {}",
    .interval = "95 % interval: {} to {} %",
    .thumbs_caption = "Weights of every head: queries down, keys across",
    .thumb_one = "Each pixel is one weight",
    .thumb_mean = "Each pixel is the mean of {0} × {0} weights",
    .thumb_step = ", an estimate from every {}th row",
    .heads_shown = "{} of {} heads; dark is the head's largest, by the square root.",
    .scatter_caption = "Heads by {} and {}; colour: {}",
    .scatter_note = "Colour, from light to dark: {} from {} to {}.",
    .clusters_caption = "{} groups of heads whose rows are alike",
    .clusters_note =
        "The distance of two heads is the Jensen-Shannon divergence of their rows in this text (Clark et al. 2019); "
        "groups are joined by the mean over their pairs.",
    .group_said = "Group {}: ",
    .apart = "{} heads, {} nats apart",
    .alone = "alone",
    .mean_caption = "Mean of heads {}",
    .mean_of_all = "Mean of {} heads",
    .map_caption = "Weights of head {}: queries down, keys across",
    .largest = "largest {}",
    .rollout_caption = "Attention rollout",
    .rollout_note = "What each token gives the tokens of the text, over all layers: the mean over all rows.",
    .rollout_causal = "What each token gives the last one, which says what comes next, over all layers.",
    .most_of = "The {} largest of {}.",
    .links_caption = "Where head {} looks: the {} largest weights of each query",
    .links_words =
        "Between words: the sum over the pieces of the word that is looked at, the mean over those of the word that "
        "looks.",
    .links_pieces = "Between pieces, as the model reads them.",
    .links_renormalised =
        "Special tokens are left out, and each row is divided by what is left so that it sums to 1 again.",
    .first_of = "The first {} of {}.",
    .why_caption = "{} → {} in head {}: the products of q and k",
    .why_facts = "q · k = {}    × {} = {}    score {}    weight {}",
    .distance_caption = "How far head {} looks: its weight by distance",
    .distance_facts = "mean distance (query − key) {}    variance {}",
    .distance_note = "A positive distance looks back, a negative one ahead.",
    .distance_range = "{} to {}",
    .pipeline_caption = "{} → {} inside head {}",
    .pipeline_q = "q of “{}”",
    .pipeline_k = "k of “{}”",
    .pipeline_products = "q × k, number by number",
    .pipeline_row = "The row of “{}”: scores, softmax, weights",
    .pipeline_mix = "Σ weight · v: the output of the head, {} numbers",
    .tokens = "tokens",
    .score = "score",
    .head = "Head {}",
    .cut_caption = "How d_model is cut into heads",
    .floor = "{} // {} = {} would not fail: it keeps {} numbers of every token and silently drops {}.",
    .refuses = "manyheads refuses it:",
    .left_over = "left over",
    .shapes_caption = "The matrices, to scale",
    .x = "the tokens",
    .wq = "makes queries",
    .wk = "makes keys",
    .wv = "makes values",
    .concat = "concatenation",
    .wo = "mixes the heads",
    .parameters = "Parameters: {}",
    .work_caption = "The work, step by step",
    .step = "Step",
    .flop = "FLOP",
    .bytes = "Bytes",
    .intensity = "FLOP per byte",
    .steps = {"x · W_q, W_k, W_v", "scores q · k", "softmax", "weights · v", "concat · W_o",
              "scores to values, in one pass"},
    .ranges_caption = "Heads by their mean {} over the passages",
    .ranges_note =
        "Thin: from the least to the most of all passages; thick: eight in ten of them; mark: the mean. This is "
        "what heads do over the scan, not in one text.",
    .distribution_caption = "How many passages have which {}, in head {}",
    .distribution_note = "Dashed: the mean. Marks below: every tenth of the passages.",
    .passages = "{} passages, mean {}, from {} to {}",
    .asking = "Tokens that ask most",
    .asked = "Tokens that are asked most",
    .query_components = "Components of q",
    .key_components = "Components of k",
    .component = "component {}",
    .over = "{} over {} passages, {} tokens",
    .relations_caption = "Heads and the best fixed distance over {} sentences of {}",
    .relations_note =
        "A head is right where it gives the partner in the tree most weight. The dashed line is the best "
        "fixed distance: a head below it reads no grammar.",
    .to_head = "{}: word → its head",
    .to_word = "{}: head → its word",
    .reads = "reads it",
    .none_reads = "No head lies above the fixed distance in both halves.",
};

constexpr FigureTexts kGerman = {
    .point = ',',
    .links_of = "Der Satz und seine Verbindungen",
    .best = "Bester Kopf",
    .weight = "Gewicht",
    .offset_mean = "Sein Mittel in diesem Abstand",
    .mean = "Mittel aller Köpfe",
    .roles = {"sagt, welche", "ist, was sie tat", "ist, wo"},
    .row_of = "Was „{}“ in Kopf {} vergibt",
    .sum = "Summe",
    .sum_one = "Ein Kopf, {}: 0,5 · v({}) + 0,5 · v({})",
    .sum_two = "Zwei Köpfe, {} und {}: nebeneinander",
    .before = "vorher",
    .after = "nach dem Tausch",
    .change = "Größte Änderung einer Zahl: {}",
    .grid_caption = "Das Gewicht jedes Kopfes auf {}",
    .grid_note =
        "Nach unten: Schichten. Nach rechts: Köpfe. Umrandet: die drei, die am weitesten über ihrem eigenen Mittel in "
        "diesem Abstand liegen.",
    .shares = "Wie oft der Partner gefunden wird: {}",
    .found = "{} von {}, {} %",
    .always = "Immer {}",
    .interval = "95-%-Intervall: {} bis {} %",
    .thumbs_caption = "Gewichte jedes Kopfes: Queries nach unten, Keys nach rechts",
    .thumb_one = "Jedes Pixel ist ein Gewicht",
    .thumb_mean = "Jedes Pixel ist das Mittel von {0} × {0} Gewichten",
    .thumb_step = ", geschätzt aus jeder {}. Zeile",
    .heads_shown = "{} von {} Köpfen; dunkel ist das größte des Kopfes, nach der Quadratwurzel.",
    .scatter_caption = "Köpfe nach {} und {}; Farbe: {}",
    .scatter_note = "Farbe, von hell nach dunkel: {} von {} bis {}.",
    .clusters_caption = "{} Gruppen von Köpfen, deren Zeilen sich gleichen",
    .clusters_note =
        "Der Abstand zweier Köpfe ist die Jensen-Shannon-Divergenz ihrer Zeilen in diesem Text (Clark et al. 2019); "
        "Gruppen werden nach dem Mittel ihrer Paare verbunden.",
    .group_said = "Gruppe {}: ",
    .apart = "{} Köpfe, {} nats auseinander",
    .alone = "allein",
    .mean_caption = "Mittel der Köpfe {}",
    .mean_of_all = "Mittel von {} Köpfen",
    .map_caption = "Gewichte von Kopf {}: Queries nach unten, Keys nach rechts",
    .largest = "größtes {}",
    .rollout_caption = "Attention Rollout",
    .rollout_note = "Was jedes Token den Tokens des Textes gibt, über alle Schichten: das Mittel aller Zeilen.",
    .rollout_causal = "Was jedes Token dem letzten gibt, das sagt, was folgt, über alle Schichten.",
    .most_of = "Die {} größten von {}.",
    .links_caption = "Wohin Kopf {} schaut: die {} größten Gewichte jeder Query",
    .links_words =
        "Zwischen Wörtern: die Summe über die Stücke des Wortes, auf das geschaut wird, das Mittel über die Stücke des "
        "Wortes, das schaut.",
    .links_pieces = "Zwischen Stücken, wie das Modell sie liest.",
    .links_renormalised =
        "Sondertokens sind weggelassen, und jede Zeile ist durch den Rest geteilt, damit sie wieder 1 ergibt.",
    .first_of = "Die ersten {} von {}.",
    .why_caption = "{} → {} in Kopf {}: die Produkte von q und k",
    .why_facts = "q · k = {}    × {} = {}    Score {}    Gewicht {}",
    .distance_caption = "Wie weit Kopf {} schaut: sein Gewicht nach Abstand",
    .distance_facts = "mittlerer Abstand (Query − Key) {}    Varianz {}",
    .distance_note = "Ein positiver Abstand schaut zurück, ein negativer voraus.",
    .distance_range = "{} bis {}",
    .pipeline_caption = "{} → {} in Kopf {}",
    .pipeline_q = "q von „{}“",
    .pipeline_k = "k von „{}“",
    .pipeline_products = "q × k, Zahl für Zahl",
    .pipeline_row = "Die Zeile von „{}“: Scores, Softmax, Gewichte",
    .pipeline_mix = "Σ Gewicht · v: die Ausgabe des Kopfes, {} Zahlen",
    .tokens = "Tokens",
    .score = "Score",
    .head = "Kopf {}",
    .cut_caption = "Wie d_model in Köpfe geteilt wird",
    .floor = "{} // {} = {} würde nicht scheitern: Es behält {} Zahlen jedes Tokens und lässt {} stillschweigend weg.",
    .refuses = "manyheads lehnt das ab:",
    .left_over = "übrig",
    .shapes_caption = "Die Matrizen, maßstäblich",
    .x = "die Tokens",
    .wq = "macht Queries",
    .wk = "macht Keys",
    .wv = "macht Values",
    .concat = "Konkatenation",
    .wo = "mischt die Köpfe",
    .parameters = "Parameter: {}",
    .work_caption = "Die Arbeit, Schritt für Schritt",
    .step = "Schritt",
    .flop = "FLOP",
    .bytes = "Bytes",
    .intensity = "FLOP je Byte",
    .steps = {"x · W_q, W_k, W_v", "Scores q · k", "Softmax", "Gewichte · v", "concat · W_o",
              "Scores bis Values, in einem Durchgang"},
    .ranges_caption = "Köpfe nach ihrem Mittel über die Abschnitte: {}",
    .ranges_note =
        "Dünn: vom kleinsten zum größten aller Abschnitte; dick: acht von zehn; Marke: das Mittel. Das tun Köpfe über "
        "den ganzen Scan, nicht in einem Text.",
    .distribution_caption = "Wie viele Abschnitte welches Maß haben ({}), in Kopf {}",
    .distribution_note = "Gestrichelt: das Mittel. Marken unten: je ein Zehntel der Abschnitte.",
    .passages = "{} Abschnitte, Mittel {}, von {} bis {}",
    .asking = "Tokens, die am meisten fragen",
    .asked = "Tokens, die am meisten gefragt werden",
    .query_components = "Komponenten von q",
    .key_components = "Komponenten von k",
    .component = "Komponente {}",
    .over = "{} über {} Abschnitte, {} Tokens",
    .relations_caption = "Köpfe und der beste feste Abstand über {} Sätze aus {}",
    .relations_note =
        "Ein Kopf hat recht, wo er dem Partner im Baum das meiste Gewicht gibt. Die gestrichelte Linie ist der "
        "beste feste Abstand: Ein Kopf darunter liest keine Grammatik.",
    .to_head = "{}: Wort → sein Kopf im Baum",
    .to_word = "{}: Kopf im Baum → sein Wort",
    .reads = "liest sie",
    .none_reads = "Kein Kopf liegt in beiden Hälften über dem festen Abstand.",
};

}  // namespace

const FigureTexts& figure_texts(bool german) { return german ? kGerman : kEnglish; }

std::string filled(std::string_view pattern, std::initializer_list<std::string> values) {
  std::string out;
  auto next = values.begin();
  for (std::size_t at = 0; at < pattern.size();) {
    if (pattern.substr(at, 2) == "{}" && next != values.end()) {
      out += *next++, at += 2;
    } else if (pattern.substr(at, 3) == "{0}" && values.size() > 0) {
      out += *values.begin(), at += 3;
    } else {
      out += pattern[at++];
    }
  }
  return out;
}

}  // namespace manyheads::cli
