"""What the cards say that no measurement decides. No digits here: every number on a card is a measured one."""

RESEARCH = "For research. Not a medical device, not for diagnosis, and no figure here is a promise about patients."

INTENDED = """## Intended use

Research on how networks tell stages of dementia from single axial slices, on training and exporting such networks, and
on how far published figures hold for people who were not trained on. Users are researchers and engineers who read
the limits below."""

OUT_OF_SCOPE = """## Out of scope

- Any decision about a patient: diagnosis, screening, prognosis, triage, enrolment.
- Other diseases: a tumour, a stroke or another dementia also gets one of these stages.
- Other views: coronal and sagittal slices, and axial ones at levels that were not trained on.
- Slices prepared otherwise than those trained on. The public sets of this task are skull-stripped and registered; a
  slice with its skull on, from another sequence, or in another orientation is not what the model knows.
- Other modalities, and pictures that are no brain slices at all."""

DATASET_USE = """## Use

Development and measurement of classifiers, with patients kept on one side of every split. Whoever splits it slice by
slice measures memory: neighbouring slices of one head are nearly the same picture. The licence, consent, scanners and
sites are not recorded in the data; ask its source before any other use."""

LIMITS = (
    "Not for clinical use. No prospective or external study stands behind any figure.",
    "The stage is that of the person, given to each of the person's slices, also to those that show nothing of it.",
    "Scanner and site are not read from the data, so nothing is known of how the figures differ between them.",
    "Results on one split; other people in the held-out part give other figures, as the intervals show.",
)

NOT_MEASURED = "Not measured for this run (`python -m train --energy` estimates it)."

ONE_CLASS = "A patient with slices of several classes counts for the one that most of them have."
