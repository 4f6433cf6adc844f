"""The published works that the catalogue names, as pure data."""

from __future__ import annotations

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A published work.

    Attributes:
        key: BibTeX key.
        title: its title.
        authors: ``Family, Given`` names in the paper's order.
        year: year of the version cited.
        venue: where it appeared; empty where it is on arXiv only.
        arxiv: identifier such as ``1604.06174``; empty where there is none.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str = ""
    arxiv: str = ""

    def bibtex(self) -> str:
        """Return the BibTeX entry."""
        fields = {
            "title": f"{{{self.title}}}",
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "booktitle": self.venue,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        entry = "inproceedings" if self.venue else "misc"
        return "\n".join([f"@{entry}{{{self.key},", *lines, "}"])


JAIN: Final = Paper(
    key="jain2020checkmate",
    title="Checkmate: Breaking the Memory Wall with Optimal Tensor Rematerialization",
    authors=(
        "Jain, Paras",
        "Jain, Ajay",
        "Nrusimha, Aniruddha",
        "Gholami, Amir",
        "Abbeel, Pieter",
        "Gonzalez, Joseph",
        "Keutzer, Kurt",
        "Stoica, Ion",
    ),
    year=2020,
    venue="Proceedings of Machine Learning and Systems",
    arxiv="1910.02653",
)
WIJMANS: Final = Paper(
    key="wijmans2024cut",
    title="Cut Your Losses in Large-Vocabulary Language Models",
    authors=(
        "Wijmans, Erik",
        "Huval, Brody",
        "Hertzberg, Alexander",
        "Koltun, Vladlen",
        'Kr{\\"a}henb{\\"u}hl, Philipp',
    ),
    year=2024,
    arxiv="2411.09009",
)
LV: Final = Paper(
    key="lv2023full",
    title="Full Parameter Fine-tuning for Large Language Models with Limited Resources",
    authors=(
        "Lv, Kai",
        "Yang, Yuqing",
        "Liu, Tengxiao",
        "Gao, Qinghui",
        "Guo, Qipeng",
        "Qiu, Xipeng",
    ),
    year=2023,
    arxiv="2306.09782",
)
HU: Final = Paper(
    key="hu2021lora",
    title="LoRA: Low-Rank Adaptation of Large Language Models",
    authors=(
        "Hu, Edward J.",
        "Shen, Yelong",
        "Wallis, Phillip",
        "Allen-Zhu, Zeyuan",
        "Li, Yuanzhi",
        "Wang, Shean",
        "Wang, Lu",
        "Chen, Weizhu",
    ),
    year=2021,
    arxiv="2106.09685",
)
QLORA: Final = Paper(
    key="dettmers2023qlora",
    title="QLoRA: Efficient Finetuning of Quantized LLMs",
    authors=("Dettmers, Tim", "Pagnoni, Artidoro", "Holtzman, Ari", "Zettlemoyer, Luke"),
    year=2023,
    arxiv="2305.14314",
)
EIGHT_BIT: Final = Paper(
    key="dettmers20218bit",
    title="8-bit Optimizers via Block-wise Quantization",
    authors=("Dettmers, Tim", "Lewis, Mike", "Shleifer, Sam", "Zettlemoyer, Luke"),
    year=2021,
    arxiv="2110.02861",
)
MEZO: Final = Paper(
    key="malladi2023fine",
    title="Fine-Tuning Language Models with Just Forward Passes",
    authors=(
        "Malladi, Sadhika",
        "Gao, Tianyu",
        "Nichani, Eshaan",
        "Damian, Alex",
        "Lee, Jason D.",
        "Chen, Danqi",
        "Arora, Sanjeev",
    ),
    year=2023,
    arxiv="2305.17333",
)
JAGUAR: Final = Paper(
    key="petrov2025leveraging",
    title="Leveraging Coordinate Momentum in SignSGD and Muon: Memory-Optimized Zero-Order",
    authors=(
        "Petrov, Egor",
        "Evseev, Grigoriy",
        "Antonov, Aleksey",
        "Veprikov, Andrey",
        "Plyusnin, Pavel",
        "Bushkov, Nikolay",
        "Moiseev, Stanislav",
        "Beznosikov, Aleksandr",
    ),
    year=2025,
    arxiv="2506.04430",
)
ZO_BENCH: Final = Paper(
    key="zhang2024revisiting",
    title=(
        "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A Benchmark"
    ),
    authors=(
        "Zhang, Yihua",
        "Li, Pingzhi",
        "Hong, Junyuan",
        "Li, Jiaxiang",
        "Zhang, Yimeng",
        "Zheng, Wenqing",
        "Chen, Pin-Yu",
        "Lee, Jason D.",
        "Yin, Wotao",
        "Hong, Mingyi",
        "Wang, Zhangyang",
        "Liu, Sijia",
        "Chen, Tianlong",
    ),
    year=2024,
    arxiv="2402.11592",
)
ZO_ADAMM: Final = Paper(
    key="chen2019zo",
    title=("ZO-AdaMM: Zeroth-Order Adaptive Momentum Method for Black-Box Optimization"),
    authors=(
        "Chen, Xiangyi",
        "Liu, Sijia",
        "Xu, Kaidi",
        "Li, Xingguo",
        "Lin, Xue",
        "Hong, Mingyi",
        "Cox, David",
    ),
    year=2019,
    venue="Advances in Neural Information Processing Systems",
    arxiv="1910.06513",
)
MARINA: Final = Paper(
    key="gorbunov2021marina",
    title="MARINA: Faster Non-Convex Distributed Learning with Compression",
    authors=(
        "Gorbunov, Eduard",
        "Burlachenko, Konstantin",
        "Li, Zhize",
        "Richt{\\'a}rik, Peter",
    ),
    year=2021,
    venue="International Conference on Machine Learning",
    arxiv="2102.07845",
)
DECOMFL: Final = Paper(
    key="li2025achieving",
    title=(
        "Achieving Dimension-Free Communication in Federated Learning via Zeroth-Order Optimization"
    ),
    authors=("Li, Zhe", "Ying, Bicheng", "Liu, Zidong", "Dong, Chaosheng", "Yang, Haibo"),
    year=2025,
    venue="International Conference on Learning Representations",
    arxiv="2405.15861",
)
LOZO: Final = Paper(
    key="chen2025enhancing",
    title="Enhancing Zeroth-order Fine-tuning for Language Models with Low-rank Structures",
    authors=("Chen, Yiming", "Zhang, Yuan", "Cao, Liyuan", "Yuan, Kun", "Wen, Zaiwen"),
    year=2025,
    venue="International Conference on Learning Representations",
    arxiv="2410.07698",
)
ZO_MUON: Final = Paper(
    key="lang2026powering",
    title="Powering Up Zeroth-Order Training via Subspace Gradient Orthogonalization",
    authors=(
        "Lang, Yicheng",
        "Wang, Changsheng",
        "Zhang, Yihua",
        "Hong, Mingyi",
        "Zhang, Zheng",
        "Yin, Wotao",
        "Liu, Sijia",
    ),
    year=2026,
    arxiv="2602.17155",
)
HIZOO: Final = Paper(
    key="zhao2025second",
    title=(
        "Second-Order Fine-Tuning without Pain for LLMs: A Hessian Informed Zeroth-Order Optimizer"
    ),
    authors=(
        "Zhao, Yanjun",
        "Dang, Sizhe",
        "Ye, Haishan",
        "Dai, Guang",
        "Qian, Yi",
        "Tsang, Ivor W.",
    ),
    year=2025,
    venue="International Conference on Learning Representations",
    arxiv="2402.15173",
)
SPARSE_MEZO: Final = Paper(
    key="liu2025sparse",
    title=("Sparse MeZO: Less Parameters for Better Performance in Zeroth-Order LLM Fine-Tuning"),
    authors=(
        "Liu, Yong",
        "Zhu, Zirui",
        "Gong, Chaoyu",
        "Cheng, Minhao",
        "Hsieh, Cho-Jui",
        "You, Yang",
    ),
    year=2025,
    venue="Advances in Neural Information Processing Systems",
    arxiv="2402.15751",
)
MEZO_SVRG: Final = Paper(
    key="gautam2024variance",
    title="Variance-reduced Zeroth-Order Methods for Fine-Tuning Language Models",
    authors=(
        "Gautam, Tanmay",
        "Park, Youngsuk",
        "Zhou, Hao",
        "Raman, Parameswaran",
        "Ha, Wooseok",
    ),
    year=2024,
    arxiv="2404.08080",
)
FORWARD: Final = Paper(
    key="baydin2022gradients",
    title="Gradients without Backpropagation",
    authors=(
        'Baydin, At{\\i}l{\\i}m G{\\"u}ne{\\c{s}}',
        "Pearlmutter, Barak A.",
        "Syme, Don",
        "Wood, Frank",
        "Torr, Philip",
    ),
    year=2022,
    arxiv="2202.08587",
)
SQUARE: Final = Paper(
    key="andriushchenko2020square",
    title="Square Attack: A Query-Efficient Black-Box Adversarial Attack via Random Search",
    authors=(
        "Andriushchenko, Maksym",
        "Croce, Francesco",
        "Flammarion, Nicolas",
        "Hein, Matthias",
    ),
    year=2020,
    venue="European Conference on Computer Vision",
    arxiv="1912.00049",
)
NOVIKOV: Final = Paper(
    key="novikov2023few",
    title=(
        "Few-bit Backward: Quantized Gradients of Activation Functions for Memory Footprint "
        "Reduction"
    ),
    authors=(
        "Novikov, Georgii",
        "Bershatsky, Daniel",
        "Gusak, Julia",
        "Shonenkov, Alex",
        "Dimitrov, Denis",
        "Oseledets, Ivan",
    ),
    year=2023,
    venue="Proceedings of the 40th International Conference on Machine Learning",
    arxiv="2202.00441",
)
