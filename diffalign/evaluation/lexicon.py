"""Closed word lists of the small prompt parser (`diffalign.evaluation.noun_chunks`)."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("a an the this that these those each every some any no another both all")
POSSESSIVES = _words("its his her their my your our")
PRONOUNS = _words("it he she they them him i you we us what who which someone something themselves itself one's")
PREPOSITIONS = _words(
    "of in on at by with for from to into onto over under above below behind between among through near past across "
    "against along around about up down out off inside outside beside before after until like towards toward during "
    "within without underneath beneath upon alongside amid"
)
CONJUNCTIONS = _words("and or but nor")
SUBORDINATORS = _words("while as when if because how where that since")
AUXILIARIES = _words("is are was were be been being am has have had do does did can could will would may might must 's")
NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve")
ADVERBS = _words(
    "next back away together even just again forth low around so very too also not high nearby forward otherwise most"
)
COLORS = _words(
    "red orange yellow green blue purple pink brown black white gray grey tan beige gold golden silver cream maroon "
    "turquoise teal violet navy whitish light dark"
)
SHAPES = _words(
    "round square oval circular rectangular triangular spherical cubic cylindrical conical pyramidal pentagonal "
    "hexagonal diamond teardrop oblong crescent heart curved angular flat"
)
SIZES = _words("big small large tiny little tall short long huge giant narrow wide thick thin massive")
MATERIALS = _words("wooden metallic metal plastic rubber fabric leather glass fluffy ceramic stone paper silk furry")
ADJECTIVES = (COLORS - _words("gold silver cream")) | (SHAPES - _words("heart diamond crescent")) | SIZES | _words(
    "wooden metallic fluffy plastic soft smooth rough warm sleek hard sharp shiny bright cool colorful striped jagged "
    "crisp natural intricate sweet delicate hot fresh gentle vibrant juicy fuzzy crunchy glossy fragrant bumpy bold "
    "old new rocky ancient perfect dull prickly rich comfortable translucent heavy vintage modern clean empty "
    "stainless many other different front favorite lively ripe beautiful final special scenic electronic solar cozy "
    "romantic dirty fancy cold sunny sticky tender spicy mid rusty grand fiery ornate silky creamy sturdy stormy "
    "shaggy rolling loud young deep quiet busy calm wet dry broken latest unique celestial blank tasty hydrated "
    "magnifying blazing towering flickering rubbery velvety checkered hula bonsai best personal local human "
    "social curly friendly bubbly ugly lovely bulky dusty thorny dim graceful elegant icy lush endless artistic plush "
    "timeless lumpy compact tart damp slimy murky opaque curvy straight choppy sour distant delicious plain slushy "
    "pungent brilliant sugary peaceful luxurious treacherous serene welcome urban earthy seasonal aerodynamic "
    "geometric healthful ceramic curious stylish savvy chilly savory pillowy delectable furry priceless plump ready "
    "eager dynamic maternal sheer dramatic abstract emotional floral clear open majestic powerful textured "
    "streamlined polished refreshing winding sparkling rounded twisted rugged"
)  # fmt: skip
VERBS = _words(
    "hung sat sit sits lay lies shone sped stood stands rose fell drove spun lit cast snaked strode wrote held hold "
    "holds cut cuts set led made make makes kept keep sang sank flew flows flowed swam ran runs saw drank ate grew "
    "blew shines features reads flash flashes plays play shows displays display has sled rode bit burst wove swept "
    "cradled hugged hummed bent clung dug drew froze gave got heard hid knew left met put rang read shook shot sold "
    "spoke stuck hidden used swung taught threw told took tore wore won serve illuminate provide stir attract "
    "decorate mix beat cook bake release covered parked"
)
NOUNS_BY_ENDING = _words(
    "butterfly lily family belly jelly fly firefly ring string spring king wing thing sling ceiling building painting "
    "clothing bowling evening morning wedding earring keyring bed seed shed sled reed bread weed pudding awning "
    "lightning railing flooring covering housing icing stuffing topping sibling duckling darling swing"
)
"""Nouns that end like an adverb or a participle."""
