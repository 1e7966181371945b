"""The spoken texts: small grammars in twelve languages. Some sentence patterns are held out from training."""

from __future__ import annotations

import numpy as np

# Each language: sentence patterns, then what may stand at {a} (somebody), {b} (does something), {c} (where or when).
# The last two patterns of every language are held out, and so is every text they make.
_GRAMMARS: dict[str, tuple[str, str, str, str]] = {
    "en": (
        "{a} {b} {c}.|Do you know why {a} {b}?|{c} {a} {b}, and nobody minds.|Well, {a} {b}, but not {c}!"
        "|My mother says that {a} {b} {c}.|I believe {a} {b} twice, {c} and again later."
        "|No, no! {a} {b}.|Listen: {c} {a} {b}.|{a} never {b} before breakfast, do you agree?"
        "|Maybe {a} {b} {c}, we shall see.|Oh wow, look, {a} {b}!"
        "|Remember the evening when {a} {b}?|If {a} {b} {c}, please tell me."
        "|What a pity that {a} {b}, {c} of all things.",
        "my neighbour|the old captain|a small blue bird|the baker's boy|our teacher|the moon above us"
        "|somebody|Bob's family"
        "|a polite robot|the lady from Porto|whoever made this|your best friend|the woman upstairs|Pam|every farmer",
        "paints big purple boats|bakes warm bread|whispers about the weather|opens the window|moves the piano"
        "|brings flowers"
        "|follows the river home|forgets the umbrella|believes in summer|polishes five apples|jumps over puddles"
        "|mumbles a poem|walks to the market|reads the morning paper|wants more pepper|feeds the brown foxes",
        "in the morning|by the harbour|under the apple tree|on Wednesday|before supper|at the museum|for a moment"
        "|behind the wall|after the storm|above the village|in a paper boat|when it rains",
    ),
    "de": (
        "{a} {b} {c}.|Weißt du, warum? {a} {b} {c}!|Heute sage ich dir: {a} {b}.|Ach so, {a} {b}, aber nicht {c}."
        "|Man erzählt, {a} {b} {c}.|Hör mal, {a} {b} {c}.|Ich glaube, {a} {b}.",
        "die Nachbarin|mein Bruder|der alte Bäcker|ein bunter Vogel|unsere Lehrerin|der Mond|Frau Baumann"
        "|das kleine Mädchen",
        "malt ein blaues Boot|backt warmes Brot|pfeift ein Lied|öffnet das Fenster|bringt Blumen mit|liebt den Sommer"
        "|putzt fünf Äpfel|wartet auf Post|kocht Suppe mit Pfeffer",
        "am Morgen|unter dem Baum|im Museum|vor dem Abendbrot|am Mittwoch|nach dem Regen|bei uns im Dorf|immer wieder",
    ),
    "fr": (
        "{a} {b} {c}.|Tu sais, {a} {b}.|{c}, {a} {b}, et voilà.|Mais non, {a} {b} {c} !|On dit que {a} {b}."
        "|Pourquoi pas ? {a} {b} {c}.|Je crois bien que {a} {b} {c}.",
        "ma voisine|le boulanger|un petit oiseau bleu|notre maîtresse|la lune|le vieux capitaine|mon frère"
        "|la femme du port",
        "peint un beau bateau|ouvre la fenêtre|apporte des fleurs|chante pour nous|prépare la soupe"
        "|oublie son parapluie"
        "|mange une pomme verte|attend le printemps|boit du café",
        "le matin|sous le pommier|au musée|avant le dîner|mercredi|après la pluie|au bord de l'eau|tous les jours",
    ),
    "es": (
        "{a} {b} {c}.|¿Sabes por qué {a} {b}?|{c}, {a} {b}.|Bueno, {a} {b}, pero no {c}.|Dicen que {a} {b} {c}."
        "|¡Mira, {a} {b}!|Me parece que {a} {b} {c}.",
        "mi vecina|el panadero|un pájaro azul|nuestra maestra|la luna|el viejo capitán|mi hermano|la mujer del puerto",
        "pinta un barco bonito|abre la ventana|trae muchas flores|come una manzana|prepara la sopa|olvida el paraguas"
        "|busca un poema|baila muy bien|espera el verano",
        "por la mañana|bajo el manzano|en el museo|antes de comer|el miércoles|después de la lluvia|en el pueblo",
    ),
    "it": (
        "{a} {b} {c}.|Sai perché {a} {b}?|{c} {a} {b}.|Ma certo, {a} {b} {c}!|Dicono che {a} {b}."
        "|Guarda, {a} {b}!|Secondo me {a} {b} {c}.",
        "la mia vicina|il fornaio|un piccolo uccello|la nostra maestra|la luna|il vecchio capitano|mio fratello|Beppe",
        "dipinge una barca|apre la finestra|porta dei fiori|mangia una mela|prepara la zuppa|dimentica l'ombrello"
        "|beve un buon caffè|aspetta la primavera",
        "al mattino|sotto il melo|nel museo|prima di cena|mercoledì|dopo la pioggia|vicino al porto|ogni tanto",
    ),
    "pt-br": (
        "{a} {b} {c}.|Você sabe por que {a} {b}?|{c}, {a} {b}.|Pois é, {a} {b}, mas não {c}.|Dizem que {a} {b}."
        "|Olha só, {a} {b}!|Acho que {a} {b} {c}.",
        "minha vizinha|o padeiro|um pássaro azul|nossa professora|a lua|o velho capitão|meu irmão|a moça do porto",
        "pinta um barco bonito|abre a janela|traz muitas flores|come uma maçã|prepara a sopa|esquece o guarda-chuva"
        "|dança muito bem|espera o verão",
        "de manhã|debaixo da árvore|no museu|antes do jantar|na quarta-feira|depois da chuva|perto do mar",
    ),
    "nl": (
        "{a} {b} {c}.|Weet je, {a} {b}.|Vandaag zeg ik: {a} {b} {c}.|Nee hoor, {a} {b}.|Kijk, {a} {b}!"
        "|Ik denk: {a} {b} {c}.",
        "de buurvrouw|mijn broer|de oude bakker|een blauwe vogel|onze juf|de maan|een klein meisje",
        "schildert een boot|opent het raam|brengt bloemen mee|eet een appel|kookt soep met peper|vergeet de paraplu",
        "in de morgen|onder de boom|in het museum|voor het eten|op woensdag|na de regen",
    ),
    "sv": (
        "{a} {b} {c}.|Vet du att {a} {b}?|Jo, {a} {b} {c}.|De säger att {a} {b}.|Titta, {a} {b}!"
        "|Jag tror att {a} {b} {c}.",
        "min granne|den gamla bagaren|en liten blå fågel|vår lärare|månen|min bror|flickan vid hamnen",
        "målar en båt|öppnar fönstret|bär hem blommor|äter ett äpple|kokar soppa|glömmer paraplyet",
        "på morgonen|under trädet|på museet|före maten|på onsdag|efter regnet",
    ),
    "pl": (
        "{a} {b} {c}.|Czy wiesz, że {a} {b}?|{c} {a} {b}.|No dobrze, {a} {b}.|Podobno {a} {b} {c}.|Patrz, {a} {b}!"
        "|Myślę, że {a} {b} {c}.",
        "moja sąsiadka|stary piekarz|mały niebieski ptak|nasza pani|księżyc|mój brat|babcia z portu",
        "maluje łódkę|otwiera okno|przynosi kwiaty|je zielone jabłko|gotuje zupę|zapomina parasola|pije kawę",
        "rano|pod jabłonią|w muzeum|przed obiadem|w środę|po deszczu|nad wodą",
    ),
    "ru": (
        "{a} {b} {c}.|Знаешь, почему {a} {b}?|{c} {a} {b}.|Ну вот, {a} {b}.|Говорят, {a} {b} {c}.|Смотри, {a} {b}!"
        "|Мне кажется, {a} {b} {c}.",
        "моя соседка|старый пекарь|маленькая птица|наша учительница|луна|мой брат|бабушка",
        "рисует лодку|открывает окно|приносит цветы|ест яблоко|варит суп|забывает зонтик|пьёт кофе",
        "утром|под яблоней|в музее|перед обедом|в среду|после дождя|у моря",
    ),
    "hi": (
        "{a} {c} {b}।|क्या तुम जानते हो, {a} {b}?|{c} {a} {b}।|अच्छा, {a} {b}।|देखो, {a} {c} {b}।|मुझे लगता है, {a} {b}।",
        "मेरी पड़ोसन|बूढ़ा आदमी|नीली चिड़िया|हमारी अध्यापिका|मेरा भाई|छोटी बहन",
        "फूल लाती है|खिड़की खोलता है|गाना गाती है|सेब खाता है|चाय बनाती है|नाव देखता है",
        "सुबह|पेड़ के नीचे|बारिश के बाद|बुधवार को|गाँव में|समुद्र के पास",
    ),
    "cmn": (
        "{a}{c}{b}。|你知道吗，{a}{b}。|{c}，{a}{b}。|好吧，{a}{b}。|你看，{a}{c}{b}！|我觉得{a}{b}。",
        "我的邻居|老爷爷|一只小鸟|我们的老师|我哥哥|妈妈|那位朋友",
        "画一条船|打开窗户|带来鲜花|吃苹果|做汤|忘了雨伞|喝茶",
        "早上|在树下|在博物馆|下雨以后|星期三|在海边",
    ),
}
LANGUAGES = tuple(_GRAMMARS)
HELD_OUT_PATTERNS = 2


def sentence(rng: np.random.Generator, language: str, split: str) -> str:
    """A sentence of one language; the patterns of "train" and "held-out" are disjoint."""
    patterns, *fillers = (row.split("|") for row in _GRAMMARS[language])
    allowed = patterns[-HELD_OUT_PATTERNS:] if split == "held-out" else patterns[:-HELD_OUT_PATTERNS]
    words = {slot: str(rng.choice(filler)) for slot, filler in zip("abc", fillers, strict=True)}
    text = str(rng.choice(allowed)).format(**words)
    return text[0].upper() + text[1:]
