import type { Texts } from "../en";
import type { Share } from "../en/tour";

const share = ({ right, of, percent, low, high }: Share): string =>
  `${right} von ${of} (${percent} %; 95-%-Intervall ${low} bis ${high} %)`;
const listed = (names: string[]): string => (names.length > 1 ? `${names.slice(0, -1).join(", ")} und ${names.at(-1)!}` : names[0] ?? "");

export const tour: Texts["tour"] = {
  step: (now, all) => `${now} von ${all}`,
  back: "Zurück",
  next: "Weiter",
  keep: "Merksatz",
  done: "Geschafft.",
  words: "Begriffe",
  show: (view) => `In ${view} zeigen`,
  list: "Schritte",
  terms: {
    model: { name: "Modell", means: "ein Programm, das aus viel Text gelernt hat, Wörter in Zahlen zu verwandeln. Welches hier rechnet, steht oben auf der Seite." },
    link: { name: "Verbindung", means: "zwei Wörter, die zusammengehören, geschrieben erstes → zweites: Das erste sucht das zweite." },
    weight: { name: "Gewicht", means: "der Anteil seiner Aufmerksamkeit, den ein Wort einem anderen gibt, von 0 bis 1." },
    token: { name: "Token", means: "ein Stück Text, das das Modell liest: meist ein Wort. [CLS] und [SEP] sind Marken, die es an die Enden setzt." },
    head: { name: "Kopf", means: "eine Art hinzusehen: Er hat eigene Gewichte von jedem Wort zu allen anderen." },
    layer: { name: "Schicht", means: "eine Runde des Hinsehens. Ein Modell hat mehrere, jede mit mehreren Köpfen. 2.8 ist Schicht 2, Kopf 8; beide sind ab 0 gezählt." },
    value: { name: "Value", means: "kurz v: die Zahlen, die ein Wort an die Wörter weitergibt, die zu ihm hinsehen." },
    output: { name: "Ausgabe", means: "was ein Wort von einem Kopf bekommt: die Values der anderen, jeder mal sein Gewicht, zusammengezählt." },
    concatenation: { name: "Konkatenation", means: "Zahlen nebeneinander schreiben, sodass keine zu einer anderen addiert wird." },
    distance: { name: "Abstand", means: "wie viele Wörter weiter das zweite Wort einer Verbindung steht: +1 ist das nächste, −1 das davor." },
    interval: { name: "95-%-Intervall", means: "So wenige Sätze lassen Zweifel. Das Intervall umfasst die Anteile, die gut zu diesen Zahlen passen." },
    query: { name: "Query", means: "kurz q: die Zahlen, die sagen, was ein Wort sucht." },
    key: { name: "Key", means: "kurz k: die Zahlen, die sagen, was ein Wort anbietet." },
    score: { name: "Score", means: "wie gut eine Query zu einem Key passt, vor dem Softmax." },
    softmax: { name: "Softmax", means: "macht aus Scores Gewichte: alle über 0, eine Zeile ergibt 1, ein größerer Score bekommt mehr." },
    d_model: { name: "d_model", means: "wie viele Zahlen für ein Token stehen." },
    h: { name: "h", means: "num_heads im Code: wie viele Köpfe eine Schicht hat." },
    d_k: { name: "d_k", means: "mit wie vielen Zahlen eines Tokens ein Kopf arbeitet: d_model / h." },
    parameter: { name: "Parameter", means: "eine Zahl, die das Modell gelernt hat." },
    rank: { name: "Rang", means: "wie viele Zeilen einer Tabelle frei sind; die anderen folgen aus ihnen." },
    vector: { name: "Vektor", means: "die Zahlen, die für einen ganzen Text stehen." },
    similarity: { name: "Ähnlichkeit", means: "1, wo zwei Vektoren in dieselbe Richtung zeigen, 0, wo sie nichts gemeinsam haben (der Kosinus)." },
    subspace: { name: "Unterraum", means: "der Teil der Zahlen eines Tokens, mit dem ein Kopf arbeitet." },
  },
  study: {
    says: "Helfen mehrere Köpfe? Kleine Modelle mit 1 bis 16 Köpfen wurden an Sätzen wie diesem trainiert.",
    link: "Was herauskam",
  },
  steps: {
    three: {
      title: "Drei Dinge zugleich",
      text: (links, chapters) => chapters
        ? ["Um „cat“ zu verstehen, braucht das Modell drei andere Wörter. „Black“ sagt, welche Katze, „sat“ sagt, was sie tat, und „mat“ sagt, wo.",
           `Drei Verbindungen halten den Satz zusammen: ${listed(links)}.`]
        : [`Wir folgen ${links.length === 1 ? "einer Verbindung" : "diesen Verbindungen"} durch Ihren Satz: ${listed(links)}. Sie sind geraten: Unter dem Bild können Sie andere wählen.`],
      act: "Tippen Sie jeden Bogen an.",
      keep: "Ein Wort braucht mehrere andere zugleich.",
    },
    row: {
      title: "Eine Zeile ergibt eins",
      text: (word, head) => [
        `Diese Balken sind die Gewichte von „${word}“ in Kopf ${head}, der in Schicht ${head.split(".")[0]!} steht: wie viel seiner Aufmerksamkeit jedes Token bekommt. Zusammen sind sie 1, immer.`,
        "Ziehen Sie einen hoch. Die anderen müssen schrumpfen.",
      ],
      act: (a, c) => `Geben Sie „${a}“ 0,9. Versuchen Sie dann, auch „${c}“ 0,9 zu geben.`,
      keep: "Was ein Wort bekommt, verliert ein anderes.",
    },
    sum: {
      title: "Eine Summe vergisst Rollen",
      text: (a, b, c) => [
        `Angenommen, ein einziger Kopf muss für „${b}“ beides lesen: halb „${a}“, halb „${c}“. Seine Ausgabe ist 0,5 · v(${a}) + 0,5 · v(${c}).`,
        "Nun tauschen die beiden Wörter die Plätze. Eine Summe ist in jeder Reihenfolge gleich, also weiß niemand mehr, wer wer war. Zwei Köpfe einer Schicht sehen je einmal hin, und ihre Ausgaben werden konkateniert.",
      ],
      act: (a, c) => `Vertauschen Sie „${a}“ und „${c}“.`,
      keep: "Konkatenation hält auseinander, was eine Summe mischt: Darum gibt es mehrere Köpfe.",
    },
    readers: {
      title: "Wer liest unsere Verbindungen?",
      text: [
        "Jedes Quadrat ist ein Kopf, jede Reihe eine Schicht. Je dunkler, desto mehr Gewicht gibt er der Verbindung.",
        "Manche Köpfe geben jedem Wort in diesem Abstand viel. Darum vergleichen wir das Gewicht eines Kopfes mit seinem eigenen Mittel im selben Abstand und umranden die drei, die am weitesten darüber liegen.",
      ],
      act: "Tippen Sie eine Verbindung an.",
      found: (link, head, weight, offset, mean) =>
        `${link}: Kopf ${head} gibt ${weight}${offset === null ? "; kein anderes Paar hat diesen Abstand" : ` und anderen Wörtern in diesem Abstand ${offset}`}. Das Mittel aller Köpfe ist ${mean}.`,
      heaviest: (head, weight, offset) =>
        `Kopf ${head} gibt ihr am meisten, ${weight}. Aber er gibt auch anderen Wörtern in diesem Abstand ${offset}.`,
      keep: (link, heads) =>
        `In diesem Satz bekommt ${link} am meisten von den Köpfen ${listed(heads)}, über das hinaus, was sie in diesem Abstand ohnehin geben.`,
    },
    grammar: {
      title: "Grammatik oder nur das nächste Wort?",
      text: (count) => [
        `Ein Satz beweist nichts. Hier sind ${count}, die Ähnliches anders sagen, mit den Verbindungen in verschiedenen Abständen; ein Dutzend sehen Sie.`,
        "Ein Kopf hat recht, wo er dem Partner, dem anderen Wort der Verbindung, das meiste Gewicht gibt. Daneben steht der beste feste Abstand: etwa „immer das übernächste Wort“. Gewählt werden Köpfe auf der einen Hälfte der Sätze, gezählt wird auf der anderen.",
      ],
      act: "Wählen Sie einen anderen Kopf, oder fügen Sie einen eigenen Satz hinzu.",
      reads: (link, heads, offset, percent) =>
        `${link}: ${heads.length === 1 ? `Kopf ${heads[0]!.head} findet` : `die Köpfe ${listed(heads.map(({ head }) => head))} finden`} das öfter als der beste Abstand (${offset}: ${percent} %). Kopf ${heads[0]!.head}: ${share(heads[0]!)}.`,
      none: (link, best, offset, percent) =>
        `${link}: Kein Kopf liegt in beiden Hälften klar über dem besten Abstand (${offset}: ${percent} %). Die erste Wahl war ${best.head}: ${share(best)}.`,
      few: (link) => `${link}: Dieses Modell sieht zu wenige solche Paare, um etwas zu sagen. Ein Wort sieht darin nur die Wörter davor.`,
      asNext: (found, percent) =>
        `Kopf ${found.head}, der der ersten Verbindung in Ihrem Satz das meiste Gewicht gibt, findet das Nomen in ${share(found)}. Das nächste Wort ist das Nomen in ${percent} %. Also lässt er sich von „immer das nächste Wort“ nicht unterscheiden.`,
      aboveNext: (found, percent) =>
        `Kopf ${found.head}, der der ersten Verbindung in Ihrem Satz das meiste Gewicht gibt, findet das Nomen in ${share(found)}. Das nächste Wort ist das Nomen in ${percent} %. Also nimmt er nicht bloß das nächste Wort.`,
      belowNext: (found, percent) =>
        `Kopf ${found.head}, der der ersten Verbindung in Ihrem Satz das meiste Gewicht gibt, findet das Nomen in ${share(found)}: seltener als „immer das nächste Wort“ (${percent} %).`,
      keep: "Ein Satz ist eine Anekdote: Prüfen Sie, bevor Sie einen Kopf benennen.",
    },
    inside: {
      title: "In einem Kopf",
      text: (link, head, d) => [
        `So kommt Kopf ${head} zu seinem Gewicht für ${link}. Die Query des ersten Wortes trifft den Key des zweiten: ${d} Produkte, zusammengezählt und skaliert, sind der Score.`,
        "Der Softmax macht aus den Scores Gewichte. Die Ausgabe ist die Mischung der Values.",
      ],
      act: (left) => (left.length === 0 ? "Öffnen Sie einen Teil noch einmal." : `Öffnen Sie in der Reihe der Teile: ${listed(left)}.`),
      keep: (d) => `${d} Produkte, ein Softmax, eine Mischung.`,
    },
    cut: {
      title: "d_model zerschneiden",
      text: ["Jeder Kopf arbeitet mit seiner eigenen Scheibe der Zahlen eines Tokens: d_k = d_model / h davon. Bei 512 Zahlen und 8 Köpfen sind das 64.", "Aber was, wenn es nicht aufgeht?"],
      act: "Stellen Sie die Zahl der Köpfe auf 7.",
      keep: (d, each, left) => `${d} = 7 · ${each} + ${left}: ${left === 0 ? "Nichts bleibt übrig" : `Von jedem Token ${left === 1 ? "ginge eine Zahl" : `gingen ${left} Zahlen`} verloren`}.`,
    },
    work: {
      title: "Dieselbe Arbeit",
      text: ["Mehr Köpfe, jeder mit weniger Zahlen: Die Parameter und die Multiplikationen bleiben gleich. Nur der Softmax wächst, denn jeder Kopf hat eigene Gewichte. Die Zeiten werden jetzt gemessen.", "Zwei Grenzen stehen daneben. Die Tabelle der Scores eines Kopfes hat höchstens den Rang d_k (Bhojanapalli et al. 2020): Mit wenigen Zahlen kann er nicht jedes Muster bilden. Und Michel et al. 2019 fanden, dass sich viele Köpfe abschalten lassen: Versuchen Sie es unten, Kopf für Kopf."],
      act: "Ziehen Sie die Zahl der Köpfe auf 16.",
      keep: (times) => `Parameter und Produkte bleiben, der Softmax wächst${times === null ? "" : `; mit 16 Köpfen zeigte die Uhr das ${times}-Fache der Zeit mit einem`}.`,
    },
    quiz: {
      title: "Prüfen Sie sich",
      text: ["Fünf Fragen. Zu jeder Antwort gehört das Bild, das zeigt, warum.", "Unterraum nennt das Kapitel die Scheibe eines Kopfes."],
      act: (left) => (left === 0 ? "Alle fünf sind beantwortet." : left === 1 ? "Eine Frage ist offen." : `${left} Fragen sind offen.`),
      keep: "Viele Arten hinzusehen zugleich, auseinandergehalten, zum Preis von einer.",
    },
  },
};
