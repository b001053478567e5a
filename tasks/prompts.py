"""Few-shot prompts: worked examples, then the question. Word problems end in `#### N`, harder ones in `\\boxed{}`.

The examples are ours, written for this suite; none comes from a data set. They show a base model the format, and
SmolLM2-135M-Instruct solved more word problems with four examples than with its chat template. For a chat template
the harder sets add the instruction to box the answer; word problems are asked bare.
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


BOXED_STOP = ("\nProblem:",)
"""Where a response to a boxed prompt ends: its solutions may have blank lines."""

BOX = "Reason step by step, and put the final answer inside \\boxed{}."

BOXED = (
    (
        "The sum of two numbers is $20$ and their difference is $6$. What is the product of the two numbers?",
        "Call the numbers $x$ and $y$ with $x + y = 20$ and $x - y = 6$.\n"
        "Adding gives $2x = 26$, so $x = 13$ and $y = 7$.\n"
        "The product is $13 \\cdot 7 = 91$. The answer is $\\boxed{91}$.",
    ),
    (
        "A bag holds $3$ red and $5$ blue marbles. Two are drawn without putting the first one back. "
        "What is the probability that both are red? Write it as a fraction in lowest terms.",
        "The first is red with probability $\\frac{3}{8}$.\n"
        "Then $2$ of the $7$ marbles left are red, so the second is red with probability $\\frac{2}{7}$.\n"
        "Both happen with probability $\\frac{3}{8} \\cdot \\frac{2}{7} = \\frac{6}{56} = \\frac{3}{28}$. "
        "The answer is $\\boxed{\\frac{3}{28}}$.",
    ),
    (
        "For which real numbers $t$ is $t^2 - 9t + 20 \\leq 0$? Answer with an interval.",
        "The left side factors as $(t - 4)(t - 5)$.\n"
        "It is not positive exactly between its roots. The answer is $\\boxed{[4, 5]}$.",
    ),
    (
        "A line through the origin meets the line $y = 12 - 2x$ at a point whose coordinates are equal. "
        "How far is that point from the origin?",
        "Equal coordinates mean $x = 12 - 2x$, so $x = y = 4$.\n"
        "The distance is $\\sqrt{4^2 + 4^2} = 4\\sqrt{2}$. The answer is $\\boxed{4\\sqrt{2}}$.",
    ),
)


def boxed_few_shot(question: str) -> str:
    """The instruction, four worked examples with boxed answers, then the question; the model goes on after it."""
    blocks = [f"Problem: {asked}\nSolution: {worked}" for asked, worked in BOXED]
    return "\n\n".join([BOX, *blocks, f"Problem: {question}\nSolution:"])


def boxed_question(question: str) -> str:
    """The question with the instruction to box the answer, for a chat template."""
    return f"{question}\n\n{BOX}"
