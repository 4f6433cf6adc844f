"""Black-box attacks: images that a model misclassifies, found by its answers alone."""

from shoestring.zeroth.attacks.jaguar import Jaguar as Jaguar
from shoestring.zeroth.attacks.loop import attack as attack
from shoestring.zeroth.attacks.nes import NES as NES
from shoestring.zeroth.attacks.record import Attack as Attack
from shoestring.zeroth.attacks.signhunter import SignHunter as SignHunter
from shoestring.zeroth.attacks.spsa import SPSA as SPSA
from shoestring.zeroth.attacks.square import Square as Square
from shoestring.zeroth.attacks.zoo import ZOO as ZOO
