"""The claims of three articles on imbalanced text, as parts to test.

The entries have the names of the main run and of the study `claims`. In the other studies, a name is that of the variant,
followed by the technique if the variant trains several.
"""

from __future__ import annotations

from collections.abc import Sequence

from ballast.evaluation.claims import CONTRADICTED, PASSES, PRIOR, PROBE, SUPPORTED, Claim, Direction, Part

# The articles. The first compares techniques on SMS spam, the second varies the class ratio, the third recommends techniques.
SPAM = "Overcoming Imbalanced Data Challenges in Real-World Scenarios, KDnuggets 2023"
RATIOS = "How to deal with class imbalance problem in natural language processing, Data Science Stack Exchange 92224, 2021"
ADVICE = "Beyond SMOTE: Pragmatic Techniques for Imbalanced Text Datasets, Borkar 2025"
# Studies that measure claims beside the study `claims`.
RATIO, SEPARABILITY, LEARNING_CURVE, ARTICLE = "ratio", "separability", "learning_curve", "article_protocol"
REWEIGHTED = ("downsample_upweight", "upsample_downweight")
# Half of the common class at weight 2, and the rare class twice at weight 1/2: in both, ham weighs twice as much as spam.
TWOFOLD = ("downsample_upweight_half", "upsample_downweight_double")


def part(technique: str, direction: Direction, metric: str, reference: str | None = "baseline") -> Part:
    """A part that compares one metric of two entries."""
    return Part(technique=technique, direction=direction, metric=metric, reference=reference)


def of_spam(rare: str, *, tuned: bool) -> list[Claim]:
    """The claims of the article on SMS spam."""
    f1, recall, precision = f"{rare}.f1", f"{rare}.recall", f"{rare}.precision"
    every = ("accuracy", "macro_f1", precision, recall, f1)
    ten, article = f"class_weight_{rare}_10", "class_weight_article"
    untuned = None if tuned else "gamma is not tuned here"

    def one(words: str, *parts: Part, caveat: str | None = None) -> Claim:
        return Claim(words=words, source=SPAM, parts=parts, caveat=caveat)

    return [
        one("Bias initialisation improves all metrics.", *(part("bias_init", "higher", metric) for metric in every)),
        one("Downsampling with upweighting lowers the recall of the rare class.", part(REWEIGHTED[0], "lower", recall),
            caveat="down to equal counts; the article keeps half of the common class"),
        one("Upsampling with downweighting lowers the recall of the rare class.", part(REWEIGHTED[1], "lower", recall),
            caveat="up to equal counts; the article doubles the rare class"),
        one("Down- or upsampling by two, with weights that make up for it, lowers the recall of the rare class.",
            *(part(entry, "lower", recall) for entry in TWOFOLD)),
        one("Reweighted resampling and bias initialisation keep the probabilities representative.",
            *(part(entry, "level", PRIOR, None) for entry in (*REWEIGHTED, *TWOFOLD, "bias_init"))),
        one("Class weights and focal loss alter the probabilities.",
            *(part(entry, "not level", PRIOR, None) for entry in ("class_weight", "focal"))),
        one("Tuned focal loss beats the baseline.", part("focal", "higher", f1), caveat=untuned),
        one("Focal loss beats the baseline in all metrics.", *(part("focal", "higher", metric) for metric in every),
            caveat=untuned),
        one("Inverse class weights beat the baseline.", part("class_weight", "higher", f1)),
        one("Inverse class weights beat the baseline in all metrics.",
            *(part("class_weight", "higher", metric) for metric in every)),
        Claim(words="Class weights of 0.576 and 3.784 beat the baseline on the article's data.", source=SPAM, study=ARTICLE,
              parts=[part(article, "higher", f1)],
              caveat="random split with duplicates, as in the article: 21% of the test spam has a near duplicate in training"),
        one("A weight of ten for the rare class raises its recall and lowers its precision and F1 against inverse weights.",
            part(ten, "higher", recall, "class_weight"), part(ten, "lower", precision, "class_weight"),
            part(ten, "lower", f1, "class_weight")),
        one("Weights of 0.25 and 0.75 make the rare class precise.", part("class_weight_quarter", "higher", precision)),
        one("Weighting helps even on balanced data.", part("class_weight_balanced", "higher", f1, "downsample"),
            caveat="weights of 0.25 and 0.75 on equal counts; inverse weights change nothing there"),
        one("Weighting does as well as resampling.", part("class_weight", "level", f1, "upsample")),
        one("Weighting does as well as resampling by bootstrap.", part("class_weight", "level", f1, "upsample_bootstrap")),
        one("Weighting is faster than resampling.", part("class_weight", "lower", PASSES, "upsample"),
            part("class_weight", "lower", PASSES, "downsample"),
            caveat="computed messages of an epoch relative to the training messages, not seconds"),
        one("Upsampling overfits the rare class: its recall falls from training to test by more than the baseline's.",
            part("upsample", "higher", f"{rare}.recall_gap")),
        one("Downsampling loses data, and with it quality.", part("downsample", "lower", f1)),
        Claim(words="Focal loss is for two classes only.", source=SPAM, by_construction=(
            CONTRADICTED, "by construction: p is taken from the softmax over any number of classes")),
        one("An alpha of 0.5 is neutral in focal loss.", part("focal_alpha_half", "level", f1, "focal"),
            caveat="it halves the loss of every message"),
        one("On an obvious message, weighted and bias-initialised models are more certain than the baseline.",
            part("class_weight", "higher", PROBE), part("bias_init", "higher", PROBE)),
        one("On an obvious message, downsampling with upweighting and focal loss are less certain than the baseline.",
            part(REWEIGHTED[0], "lower", PROBE), part("focal", "lower", PROBE)),
    ]  # fmt: skip


def of_ratios(rare: str, common: str, entries: Sequence[str], reference: str) -> list[Claim]:
    """The claims of the question on class ratios and of its answer."""
    f1, recall, precision = f"{rare}.f1", f"{rare}.recall", f"{rare}.precision"

    def one(words: str, study: str, *parts: Part, caveat: str | None = None) -> Claim:
        return Claim(words=words, source=RATIOS, study=study, parts=parts, caveat=caveat)

    def common_and_rare(variant: str, direction: Direction) -> Part:
        metrics = {"metric": f"{common}.recall", "reference_metric": recall}
        return Part(technique=variant, reference=variant, direction=direction, **metrics)

    shortened = "the classes overlap because only the first tokens of a message are read"
    return [
        one("Recall falls when training moves from balanced classes to one in ten.", RATIO,
            part("ratio_10", "lower", recall, "ratio_1")),
        one("At one in ten, more messages of the common class are recognised than of the rare one.", RATIO,
            common_and_rare("ratio_10", "higher"), caveat="the question reports 0.98 and 0.80"),
        one("At 1:1 and 1:2, both classes are recognised equally well.", RATIO,
            common_and_rare("ratio_1", "level"), common_and_rare("ratio_2", "level")),
        one("The class ratio trades recall for precision.", RATIO,
            part("ratio_10", "lower", recall, "ratio_1"), part("ratio_10", "higher", precision, "ratio_1")),
        one("Imbalance is no problem where the classes separate.", SEPARABILITY,
            part("full/ratio_10", "not lower", f1, "full/ratio_1"),
            caveat="the number of rare messages stays the same; one in ten has more of the common class"),
        one("Where the classes overlap, imbalance costs recall.", SEPARABILITY,
            part("short/ratio_10", "lower", recall, "short/ratio_1"), caveat=shortened),
        one("One-class classification is poor where the classes are close.", SEPARABILITY,
            part("short/one_class", "lower", f1, "short/baseline"), caveat=shortened),
        one("A simpler model suffices where the rare messages are few.", LEARNING_CURVE,
            part("share_5/tfidf", "not lower", f1, "share_5/baseline")),
        Claim(words="When only accuracy counts, no technique helps.", source=RATIOS,
              parts=[part(name, "not higher", "accuracy", reference) for name in entries if name != reference]),
    ]  # fmt: skip


def of_advice(rare: str) -> list[Claim]:
    """The claims of the article that recommends techniques."""
    f1 = f"{rare}.f1"

    def curve(words: str, *parts: Part, caveat: str | None = None) -> Claim:
        return Claim(words=words, source=ADVICE, study=LEARNING_CURVE, parts=parts, caveat=caveat)

    better = {"lade": "LADE", "augment": "Augmentation", "down_and_upsample": "Combined down- and upsampling"}
    edits = "words are swapped, deleted or misspelt; without synonyms and insertions, which need a thesaurus"
    return [
        *(
            Claim(words=f"{name} beats the baseline.", source=ADVICE, parts=[part(entry, "higher", f1)],
                  caveat=edits if entry == "augment" else None)
            for entry, name in better.items()
        ),
        curve("Downsampling costs nothing where messages are plentiful.",
              part("share_100/downsample", "not lower", f1, "share_100/baseline")),
        curve("Upsampling beats downsampling where messages are scarce.",
              part("share_25/upsample", "higher", f1, "share_25/downsample")),
        curve("Where messages are very few, sampling is not enough.",
              part("share_5/upsample", "lower", f1, "share_100/baseline"),
              part("share_5/downsample", "lower", f1, "share_100/baseline"),
              caveat="against the baseline with all messages"),
        curve("More data is the fundamental fix.", part("share_100/baseline", "higher", f1, "share_25/baseline"),
              part("share_100/baseline", "higher", f1, "share_25/upsample"),
              part("share_100/baseline", "higher", f1, "share_25/downsample")),
        Claim(words="An accuracy of 99% means nothing where 1% of the messages are rare.", source=ADVICE, by_construction=(
            SUPPORTED, "by construction: the model that always predicts the common class has it, with a recall of 0")),
    ]  # fmt: skip


def claims(rare: str, common: str, entries: Sequence[str], reference: str = "baseline", *, tuned: bool) -> list[Claim]:
    """The claims of the articles for the rarest class `rare` and the most frequent one `common`.

    entries : names of all entries of the comparison, for the claim that no technique helps.
    tuned : whether the parameters of focal loss were searched.

    Examples
    --------
    >>> stated = claims("spam", "ham", ["baseline", "focal"], tuned=True)
    >>> stated[0].words, [part.metric for part in stated[0].parts]
    ('Bias initialisation improves all metrics.', ['accuracy', 'macro_f1', 'spam.precision', 'spam.recall', 'spam.f1'])
    """
    return [*of_spam(rare, tuned=tuned), *of_ratios(rare, common, entries, reference), *of_advice(rare)]
