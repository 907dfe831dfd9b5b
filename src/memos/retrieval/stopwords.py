"""Words that carry no subject, by language: left out of indexes and queries, and counted to tell languages.

The lists hold function words (articles, pronouns, auxiliaries, prepositions, conjunctions, question
words) and, in English and Chinese, what people say to each other without saying anything. Words are in
the folded form of `memos.retrieval.keywords`: NFKC, case-folded, without apostrophes, and those in Latin
script without accents. "may" is missing on purpose, as it is also a month.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENGLISH = _words("""
a an the this that these those such same other another each every either neither both all any some
no not nor none only own very too so just also even still yet ever quite rather almost much many more
most few less least several enough
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she
her hers herself it its itself they them their theirs themselves one ones someone something anyone
anything everyone everything nobody nothing
be am is are was were been being do does did doing done have has had having can could will would shall
should might must ought need let lets get gets got getting
and or but if then else than because as while although though unless until since whether
of at by for with about against between into through during before after above below to from up down in
out on off over under again further along across around behind beside near per upon within without via
toward towards onto
who whom whose which what when where why how whatever whichever whoever
here there now
im ive id ill youre youve youd youll hes shes weve wed theyre theyve theyd theyll thats theres whats
whos wheres hows heres dont doesnt didnt isnt arent wasnt werent wont wouldnt cant couldnt shouldnt
hasnt havent hadnt aint mustnt neednt shant mightnt cannot gonna wanna gotta
oh hey hi hello yeah yes yep yup nope ok okay um uh hmm wow ah aw haha lol please well really
""")

# Written with a capital in English, and still no name of anything that memories are linked by.
CALENDAR = _words("""
january february march april may june july august september october november december
jan feb mar apr jun jul aug sep sept oct nov dec
monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun
today tomorrow yesterday tonight am pm
""")
FORMULAS = _words("""
mr mrs ms dr prof sir madam thanks thank thx sorry congrats congratulations bye goodbye good great glad
cool nice sure happy wonderful awesome amazing absolutely definitely anytime welcome woohoo yay damn
btw omg asap fyi tv diy faq ps lmao imo
""")

GERMAN = _words("""
der die das den dem des ein eine einen einem einer eines und oder aber denn weil dass wenn als ob wie
ich du er sie es wir ihr mich dich ihn uns euch mir dir ihm ihnen sich mein meine meinen meinem meiner
dein deine sein seine seinen seiner ihre ihren ihrem ihrer unser unsere euer
bin bist ist sind seid war waren gewesen werde wirst wird werden wurde habe hast hat haben hatte hatten
kann kannst konnen konnte muss mussen soll sollen will wollen darf mag
nicht kein keine keinen auch noch nur schon sehr so da dann hier dort jetzt doch mal
in im an am auf aus bei beim mit nach von vom vor zu zum zur uber unter durch fur gegen ohne um bis
zwischen seit wegen wer wen wem was wann wo warum welche welcher welches dieser diese dieses jeder
""")

FRENCH = _words("""
le la les un une des du de au aux ce cet cette ces et ou mais donc or ni car que qui quoi dont lequel
je tu il elle on nous vous ils elles me te se moi toi lui leur leurs mon ma mes ton ta tes son sa ses
notre nos votre vos y en
suis es est sommes etes sont etais etait etaient etre ete ai as avons avez ont avais avait avoir eu
fait faire peut peux veux
ne pas plus non oui si aussi tres bien tout tous toute toutes meme ici la alors comme quand comment
pourquoi
dans sur sous avec sans pour par entre vers chez avant apres depuis pendant contre
c d j l m n s t qu jusqu lorsqu puisqu
""")

SPANISH = _words("""
el la los las un una unos unas lo al del y e o u pero sino porque que quien quienes cual cuales cuando
como donde yo tu usted ella ellos ellas nosotros vosotros ustedes me te se le les nos os mi mis tu tus su
sus nuestro nuestra este esta estos estas ese esa eso esos esas aquel aquella esto
soy eres es somos son era eran fue fueron ser sido estoy estas esta estamos estan estaba he has ha
hemos han habia hay tengo tiene tener hacer
no si ni muy mas menos tambien tan ya aun todo todos toda todas otro otra
de a en con sin por para sobre entre hasta desde hacia contra segun durante ante bajo
""")

ITALIAN = _words("""
il lo la i gli le un uno una di a da in con su per tra fra del dello della dei degli delle al allo alla
ai agli alle dal dalla nel nella nei nelle sul sulla e ed o ma se perche che chi cui quale quali quando
come dove io tu lui lei noi voi loro mi ti si ci vi ne mio mia miei mie tuo tua suo sua nostro vostro
sono sei siamo siete era erano stato essere ho hai ha abbiamo avete hanno aveva avere
non piu molto anche gia ancora cosi questo questa questi queste quello quella tutto tutti
l d c un dell all nell sull quell
""")

PORTUGUESE = _words("""
o a os as um uma uns umas de do da dos das em no na nos nas por pelo pela para com sem sobre entre ate
desde ao aos e ou mas se porque que quem qual quais quando como onde eu tu ele ela eles elas voce voces
me te lhe meu minha meus minhas teu tua seu sua seus suas nosso nossa
sou es e somos sao era eram foi foram ser sido estou esta estamos estao estava tenho tem temos tinha ter
ha havia nao sim muito mais menos tambem ja ainda tao este esta isto esse essa isso aquele aquela tudo
todos toda todas
""")

DUTCH = _words("""
de het een en of maar want omdat dat die dit deze als dan wie wat waar wanneer waarom hoe welke
ik jij je u hij zij ze wij we jullie mij me jou hem haar ons hun hen zich mijn jouw zijn onze
ben bent is was waren geweest word wordt worden werd heb hebt heeft hebben had hadden kan kunnen kon
moet zal zullen zou wil mag
niet geen ook nog al wel zo er hier daar nu toch heel erg
van in op aan met voor door naar bij uit over onder tot tegen tussen zonder om te na sinds
""")

SWEDISH = _words("""
och att det som en ett den de i pa av for med till ar var har hade inte om han hon vi ni jag du mig dig
sig min mitt mina din ditt dina sin sitt sina men eller sa nar hur vad vem varfor dar har kan ska skulle
vill maste fran vid under over efter utan mellan ocksa bara mycket an denna detta dessa alla
""")

LATIN_LANGUAGES = {
    "german": GERMAN,
    "french": FRENCH,
    "spanish": SPANISH,
    "italian": ITALIAN,
    "portuguese": PORTUGUESE,
    "dutch": DUTCH,
    "swedish": SWEDISH,
}

RUSSIAN = _words("""
и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее мне было вот
от меня еще нет о из ему ли если уже или ни быть был него до вас опять уж вам ведь там потом себя ничего
ей может они тут где есть надо ней для мы тебя их чем была сам чтоб без чего раз тоже себе под будет
тогда кто этот того потому этого какой ним здесь этом один мой моя мои тем чтобы нее были куда зачем
всех при об эта это эти когда который
""")

# Chinese function words: characters and pairs that say nothing by themselves, and the characters that are
# hardly ever part of a longer word, at which a run may be cut.
HAN_CHARACTERS = frozenset(
    "的了吗呢吧啊呀嘛哦嗯么着过得地是在和与及或而但我你他她它们这那哪就也都还又很不没有把被让给从向到对于以为之其"
)
HAN_PARTICLES = "的了吗呢吧啊呀嘛哦嗯我你他她它们这那哪很是在叫把被"
HAN_PAIRS = _words("""
我们 你们 他们 她们 它们 我的 你的 他的 她的 它的 们的 自己 大家 什么 怎么 怎样 为什 多少 哪里 哪儿 哪个 谁的
这个 那个 这些 那些 这里 那里 这样 那样 一个 一些 一下 一样 没有 不是 就是 也是 还是 都是 是的 不会 不能 可以
因为 所以 但是 而且 或者 如果 虽然 然后 已经 现在 时候 知道 觉得 告诉 请问 是不 不过 以及 关于 对于
""")
