"""Few-shot prompts for word problems: four worked examples that end in `#### N`, then the question.

The examples are ours, written for this suite; none comes from a data set. They show a base model the format, and
SmolLM2-135M-Instruct solved more word problems with four examples than with its chat template.
"""

from __future__ import annotations

STOP = ("\n\n", "Question:")
"""Where a response ends: the examples have no blank line inside, so a blank line means the next question."""

SEVERAL_STEPS = (
    (
        "A bakery sells muffins for $3 and loaves of bread for $5. On Monday it sold 14 muffins and twice as many "
        "loaves as on Sunday, when it sold 6. How much money did it take on Monday?",
        "The muffins brought 14 * 3 = 42 dollars.\n"
        "The bakery sold 2 * 6 = 12 loaves on Monday.\n"
        "The loaves brought 12 * 5 = 60 dollars.\n"
        "Altogether it took 42 + 60 = 102 dollars.\n"
        "#### 102",
    ),
    (
        "Ines has 90 minutes for her homework. She spends a third of the time on maths and 25 minutes on history. "
        "How many minutes are left for reading?",
        "Maths takes 90 / 3 = 30 minutes.\n"
        "Maths and history take 30 + 25 = 55 minutes.\n"
        "So 90 - 55 = 35 minutes are left.\n"
        "#### 35",
    ),
    (
        "A water tank holds 240 litres and is one quarter full. A pump adds 12 litres a minute. "
        "How many minutes does it take to fill the tank?",
        "The tank holds 240 / 4 = 60 litres now.\n"
        "It still needs 240 - 60 = 180 litres.\n"
        "The pump takes 180 / 12 = 15 minutes.\n"
        "#### 15",
    ),
    (
        "Tomas buys 4 boxes with 18 pencils each. He gives 5 pencils to each of his 7 friends and loses 3. "
        "How many pencils does he still have?",
        "He buys 4 * 18 = 72 pencils.\n"
        "He gives away 5 * 7 = 35 pencils.\n"
        "After that he has 72 - 35 = 37 pencils.\n"
        "After losing 3 he has 37 - 3 = 34 pencils.\n"
        "#### 34",
    ),
)

ONE_STEP = (
    (
        "A gardener planted 23 tulips in the front yard and 48 tulips in the back yard. "
        "How many more tulips are in the back yard?",
        "The back yard has 48 - 23 = 25 more tulips.\n#### 25",
    ),
    (
        "Each shelf holds 9 jars. There are 7 shelves and 4 windows. How many jars fit on the shelves?",
        "The shelves hold 7 * 9 = 63 jars.\n#### 63",
    ),
    (
        "Omar had some stickers. He got 16 more and now he has 41 stickers. How many did he have at first?",
        "At first he had 41 - 16 = 25 stickers.\n#### 25",
    ),
    (
        "The 56 children of a school go on a trip in 8 vans with the same number in each. "
        "How many children are in each van?",
        "Each van carries 56 / 8 = 7 children.\n#### 7",
    ),
)


def few_shot(examples: tuple[tuple[str, str], ...], question: str) -> str:
    """The examples and then the question, as `Question: ...` and `Answer: ...` blocks; the model goes on after it."""
    blocks = [f"Question: {asked}\nAnswer: {worked}" for asked, worked in examples]
    return "\n\n".join([*blocks, f"Question: {question}\nAnswer:"])
