"""The patterns that fill slots: one clause, in the first person, from its first word to its last.

Data, not code: a line is a slot, a pattern with a group `value`, and what sets it apart. A pattern must
match the whole clause, so that what follows ("I live in Lyon with my fears") is either known or refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to say one slot. `text` and `value` override how the statement and the value are made."""

    slot: str
    pattern: re.Pattern[str]
    confidence: float = 0.9
    chinese: bool = False
    ended: bool = False
    text: str = ""
    value: str = ""
    refused: re.Pattern[str] | None = None
    goes_on: bool = False  # later rules may read the same clause too ("as a nurse at Mercy")


_CAP = r"[A-Z\u00c0-\u00de][\w'&.-]*"
_PROPER = rf"(?P<value>(?:the )?{_CAP}(?: (?:{_CAP}|of|de|la|and|upon|the|am|der|\d+))*)"
_WHEN = (
    r"(?i:\s+(?:now|currently|these days|nowadays|at the moment|again|recently|permanently|full[- ]time|part[- ]time"
    r"|yesterday|today|(?:last|this|since|for|in|with|as|a|an|about|two|three|four|five|six|\d+|at the age)\b.*))?$"
)
_NOW = r"(?:(?:currently|now|still|just|recently|actually|finally|also|have|'ve)\s+)*"
_AM = r"(?:i am|i'm|im|i was)"
_NOT_A_PLACE = re.compile(
    r"^(?:the )?(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|Christmas|Easter|Thanksgiving|I|God|Jesus|English|French"
    r"|Spanish|German|Chinese|He|She|It|They|We|You|Zoom|Teams)$"
)
_JOBS = (
    "nurse|teacher|engineer|developer|programmer|doctor|lawyer|student|chef|cook|accountant|architect|artist|actor|actress"
    "|baker|barista|bartender|biologist|carpenter|cashier|chemist|consultant|counsel(?:l)?or|dentist|designer|director|driver"
    "|economist|editor|electrician|farmer|firefighter|freelancer|gardener|journalist|librarian|manager|mechanic|midwife"
    "|musician|painter|paramedic|pharmacist|photographer|physicist|physiotherapist|pilot|plumber|police officer|professor"
    "|psychologist|psychiatrist|receptionist|researcher|sailor|salesperson|scientist|secretary|singer|social worker|soldier"
    "|surgeon|tailor|therapist|translator|tutor|veterinarian|vet|waiter|waitress|writer|analyst|postdoc|lecturer|nanny|coach"
)
_JOB = rf"(?P<value>(?:[a-z][\w-]*\s+){{0,3}}(?:{_JOBS}))"
_STATUS = r"(?P<value>single|married|divorced|engaged|widowed|separated)"
_PETS = (
    "dog|puppy|cat|kitten|rabbit|hamster|parrot|horse|pony|turtle|tortoise|goldfish|guinea pig|ferret|snake|lizard|bird|retriever"
    "|labrador|poodle|beagle|corgi|terrier|husky|shepherd|budgie|gecko"
)
_CHILDREN = "son|daughter|child|kid|baby|sister|brother|twin|twin sister|twin brother|nephew|niece|grandson|granddaughter"
_NUMBER = r"(?:a|an|one|two|three|four|five|six|seven|eight|\d+)"
_ILLNESS = (
    r"(?:type (?:1|2|one|two) )?diabetes|asthma|migraines?|epilepsy|celiac disease|coeliac disease|high blood pressure|arthritis"
    r"|insomnia|hypothyroidism|adhd|autism|dyslexia|anemia|anaemia|eczema|psoriasis|depression|ibs|a heart condition|hay fever"
)
_LANGUAGES = (
    "English|French|German|Spanish|Italian|Portuguese|Chinese|Mandarin|Cantonese|Japanese|Korean|Russian|Arabic|Dutch|Hindi|Turkish"
    "|Polish|Swedish|Norwegian|Danish|Finnish|Greek|Hebrew|Thai|Vietnamese|Ukrainian|Czech|Hungarian|Romanian|Swahili|Catalan"
)
_OWNED = "car|bike|bicycle|motorcycle|motorbike|scooter|truck|van|boat|house|apartment|flat|piano|guitar|violin|telescope|camera|tesla"


def _i(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.I)


_ENGLISH = (
    Rule("lives_in", re.compile(rf"^(?i:i {_NOW}(?:live|reside)|(?:i am|i'm) {_NOW}(?:living|based|residing)) in {_PROPER}{_WHEN}"), refused=_NOT_A_PLACE),
    Rule("lives_in", re.compile(rf"^(?i:i(?:'ve)? {_NOW}(?:moved|relocated)(?: (?:back|over|out|house))?(?: from [\w ]+?)?) to {_PROPER}{_WHEN}"), 0.85, refused=_NOT_A_PLACE),
    Rule("lives_in", re.compile(rf"^(?i:i (?:no longer live|don't live|do not live|used to live|stopped living)) in {_PROPER}(?i:\s+any ?more)?{_WHEN}"), ended=True, refused=_NOT_A_PLACE),
    Rule("job", _i(rf"^i {_NOW}(?:work|work full[- ]time|work part[- ]time) as an? {_JOB}(?: (?:at|for|in|with) .+)?$"), goes_on=True),
    Rule("job", _i(rf"^(?:i am|i'm) {_NOW}an? (?!not\b){_JOB}(?: (?:at|for|in|by) .+)?$"), 0.85, refused=_i(r"\b(?:good|bad|great|terrible|better|big|real|such|fan|bit|not|kind|type|slow|fast|lucky|happy)\b"), goes_on=True),
    Rule("job", _i(rf"^i {_NOW}(?:became|got a job as|started (?:working|a job|a new job) as) an? {_JOB}(?: .+)?$"), 0.85, goes_on=True),
    Rule("job", _i(r"^(?:i (?:just |recently |finally )?(?:quit|left|lost) my (?:old )?job|i (?:got|was) (?:fired|laid off))(?: .*)?$"), 0.8, ended=True, text="{subject} no longer has the job of before."),
    Rule("works_at", re.compile(rf"^(?i:i {_NOW}work(?: as an? [\w -]+?)?|(?:i am|i'm) {_NOW}(?:working|employed)(?: as an? [\w -]+?)?|(?:i am|i'm) an? [\w -]+?) (?:at|for) {_PROPER}{_WHEN}"), refused=_NOT_A_PLACE),
    Rule("works_at", re.compile(rf"^(?i:i(?:'ve)? {_NOW}(?:started (?:working )?(?:at|for)|got (?:a|my) (?:new )?job at)) {_PROPER}{_WHEN}"), 0.8, refused=_NOT_A_PLACE),
    Rule("works_at", re.compile(rf"^(?i:i (?:no longer work|don't work|do not work|used to work|stopped working|quit my job|left my job)) (?:at|for) {_PROPER}(?i:\s+any ?more)?{_WHEN}"), ended=True, refused=_NOT_A_PLACE),
    Rule("name", re.compile(rf"^(?i:my (?:full |first |real )?name is|my name's|i(?: am|'m) (?:called|named)) (?P<value>{_CAP}(?: {_CAP}){{0,3}})$"), 0.95),
    Rule("age", _i(r"^(?:i am|i'm) (?:now |only |already )?(?P<value>[1-9]\d?|1[01]\d) years old(?: now)?$"), 0.95),
    Rule("age", _i(r"^(?:i am|i'm) (?:now |only |already )?(?P<value>[1-9]\d)$"), 0.7),
    Rule("age", _i(r"^i (?:just |recently )?turned (?P<value>[1-9]\d?)(?: (?:today|yesterday|last \w+|this \w+))?$"), 0.85),
    Rule("birthday", _i(r"^(?:my (?:birthday|date of birth) is(?: on)?|i was born on) (?:the )?(?P<value>(?=.*\d)[\w ./-]{3,30})$"), 0.95),
    Rule("phone", _i(r"^my (?:(?:new|mobile|cell|home|work) )*(?:phone|mobile|cell|telephone)?(?: number)? is (?P<value>\+?[\d][\d ().-]{5,20}\d)$"), 0.95),
    Rule("email", _i(r"^my (?:(?:new|work|private) )?e-?mail(?: address)? is (?P<value>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)$"), 0.95),
    Rule("address", _i(r"^my (?:(?:new|home|postal|mailing) )*address is (?P<value>(?=.*\d)[\w .'-]{5,80})$"), 0.9),
    Rule("from", re.compile(rf"^(?i:(?:i am|i'm) (?:originally )?|i come )from {_PROPER}(?i: originally)?$"), 0.85, refused=_NOT_A_PLACE),
    Rule("born_in", re.compile(rf"^(?i:i was born) in {_PROPER}{_WHEN}"), refused=_NOT_A_PLACE),
    Rule("grew_up_in", re.compile(rf"^(?i:i grew up|i was raised) in {_PROPER}{_WHEN}"), refused=_NOT_A_PLACE),
    Rule("studies_at", re.compile(rf"^(?i:i {_NOW}(?:study|go to school)(?: [\w ]+?)?|(?:i am|i'm) {_NOW}(?:studying|enrolled)(?: [\w ]+?)?) at {_PROPER}{_WHEN}"), refused=_NOT_A_PLACE),
    Rule("relationship_status", _i(rf"^(?:i am|i'm) (?:now |still |happily |newly |recently |currently )*{_STATUS}(?: (?:now|again|to \w+|with (?:a|one|two|three|\d) .+))?$")),
    Rule("relationship_status", _i(r"^i (?:just |recently |finally )?got (?P<value>married|divorced|engaged)(?: (?:to \w+|yesterday|today|last .+|in .+|this .+))?$")),
    Rule("blood_type", _i(r"^my blood (?:type|group) is (?P<value>(?:A|B|AB|O)\s?(?:[+-]|positive|negative)?)$"), 0.95),
    Rule("pronouns", _i(r"^my pronouns are (?P<value>\w+/\w+(?:/\w+)?)$"), 0.95),
    Rule("time_zone", re.compile(r"^(?i:my time ?zone is|(?:i am|i'm) in the) (?P<value>(?:UTC|GMT)(?:[+-]\d{1,2}(?::\d\d)?)?|[A-Z][a-z]+/[A-Z][A-Za-z_]+|[A-Z]{3,4})(?i: time ?zone)?$"), 0.9),
    Rule("height", _i(r"^(?:i am|i'm) (?P<value>\d(?:\.\d+)? ?m(?:et(?:er|re)s)?|\d{3} ?cm|\d'\d{1,2}\"?|\d feet(?: \d{1,2}(?: inches)?)?) tall$"), 0.9),
    Rule("health", _i(rf"^(?:i (?:also |do )?(?:have|suffer from|got diagnosed with|was diagnosed with)|(?:i am|i'm) diagnosed with) (?:a |an )?(?P<value>{_ILLNESS})$")),
    Rule("health", _i(r"^(?:i am|i'm) (?:a )?(?P<value>diabetic|epileptic|asthmatic|colou?r[- ]blind|dyslexic|autistic|deaf|blind)$"), text="{subject} is {value}."),
    Rule("language", re.compile(rf"^(?i:i (?:also |can (?:also )?)?(?:speak|(?:am|'m) fluent in)|i'm fluent in) (?i:fluent )?(?P<value>(?:{_LANGUAGES})(?:(?: and|,) (?:{_LANGUAGES}))*)(?i: fluently| at home)?$")),
    Rule("pet", re.compile(rf"^(?i:i (?:just |recently |also |have |finally )*(?:have|own|adopted|got|bought|rescued|keep)) (?i:an?|my|this) (?P<what>(?:[\w-]+ ){{0,4}}?(?:{_PETS})) (?:named|called) (?P<name>{_CAP})(?i: (?:yesterday|today|last .+|this .+))?$"), 0.95, value="{name} ({what})", text="{subject} has a pet: {value}."),
    Rule("pet", re.compile(rf"^(?i:my) (?P<what>(?:[\w-]+ ){{0,3}}?(?:{_PETS}))(?:'s name is| is (?:named|called)) (?P<name>{_CAP})$"), 0.95, value="{name} ({what})", text="{subject} has a pet: {value}."),
    Rule("pet", _i(rf"^i (?:also )?(?:have|own) (?P<value>{_NUMBER} (?:[\w-]+ ){{0,2}}?(?:{_PETS}|puppies|ponies)s?)$"), 0.9),
    Rule("family", re.compile(rf"^(?i:i (?:also )?have) (?P<what>(?i:an? (?:[\w-]+ ){{0,2}}?(?:{_CHILDREN}))) (?:named|called) (?P<name>{_CAP})$"), 0.95, value="{what} named {name}"),
    Rule("family", re.compile(rf"^(?i:my) (?P<what>(?i:(?:older |younger |little |big |elder |eldest |youngest )?(?:{_CHILDREN})))(?:'s name is| is (?:named|called)) (?P<name>{_CAP})$"), 0.95, value="a {what} named {name}"),
    Rule("family", _i(rf"^i (?:also )?have (?P<value>{_NUMBER} (?:(?:older|younger|little|big|twin|beautiful|grown|adult|small|wonderful) ){{0,2}}(?:{_CHILDREN}|children|babie|grandchildren|grandkid)s?)$"), 0.9),
    Rule("possession", _i(rf"^i (?:also )?(?:own|have|drive|play) (?P<value>an? (?:[\w-]+ ){{0,3}}?(?:{_OWNED}))$"), 0.8, refused=_i(r"\b(?:toy|rental|rented|borrowed|dream|bad|good)\b")),
)  # fmt: skip

_HAN_NOW = "(?:现在|目前|如今|一直|还|仍然|仍|已经|都|就|刚|刚刚|最近|也|又)*+"
_HAN_TAIL = r"(?:了|的|呢|哦|啊|呀|(?:已经)?(?:有)?[一二三四五六七八九十两几\d]+(?:多)?(?:年|个月|天)(?:了|多)?|很久了|多年了?|附近)*+$"
_HAN_PLACE = r"(?P<value>[\u4e00-\u9fffA-Za-z· ]{2,12}?)"
_HAN_NOT_A_PLACE = re.compile(
    r"这|那|哪|什么|你|我|他|她|它|家里?$|^家|宿舍|酒店|宾馆|医院|学校$|公司$|隔壁|楼|一起|附近|外面|里面|一个|一家|某|恐惧|中"
    r"|很|非常|特别|不|跟|和|与|过|得|时|觉得|开心|快乐|舒服|挺|太|真|努力|认真|拼命|网上|线上|电脑|早上|晚上|上午|下午|周|月|年"
)
_HAN_NOT_WHERE = re.compile(rf"{_HAN_NOT_A_PLACE.pattern}|[院校久惯满层号户]|[边面旁厅房间]$|^[过进下了完]")
_HAN_JOBS = (
    "护士|老师|教师|工程师|程序员|开发者|医生|律师|学生|大学生|研究生|厨师|会计|会计师|建筑师|艺术家|演员|设计师|司机|编辑|电工|农民|消防员|自由职业者"
    "|记者|图书管理员|经理|音乐家|画家|药剂师|摄影师|飞行员|教授|心理咨询师|研究员|科学家|秘书|歌手|社工|军人|翻译|兽医|服务员|作家|分析师|警察|销售|公务员|教练"
)
_HAN_ILLNESS = "糖尿病|哮喘|高血压|癫痫|偏头痛|关节炎|失眠症?|贫血|湿疹|抑郁症|心脏病|鼻炎|胃病|乳糜泻"
_HAN_PETS = (
    "狗|小狗|狗狗|猫|小猫|猫咪|兔子|仓鼠|鹦鹉|乌龟|金鱼|金毛|金毛犬|柯基|泰迪|布偶猫|橘猫|哈士奇|边牧|马"
)
_HAN_COUNT = "(?:一|两|二|三|四|五|六|\\d+)"


def _z(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_CHINESE = (
    Rule("lives_in", _z(rf"^我{_HAN_NOW}(?:住在|居住在|定居在|定居于){_HAN_PLACE}{_HAN_TAIL}"), refused=_HAN_NOT_A_PLACE),
    Rule("lives_in", _z(rf"^我{_HAN_NOW}住(?!在){_HAN_PLACE}{_HAN_TAIL}"), 0.8, refused=_HAN_NOT_WHERE),
    Rule("lives_in", _z(rf"^我{_HAN_NOW}在{_HAN_PLACE}(?:居住|定居){_HAN_TAIL}"), refused=_HAN_NOT_A_PLACE),
    Rule("lives_in", _z(rf"^我(?:上个?月|去年|今年|上周|昨天|前年)?{_HAN_NOW}(?:从.{{2,8}})?(?:早就|早已)?(?:搬到|搬去|搬来|搬回|搬家到)了?{_HAN_PLACE}{_HAN_TAIL}"), 0.85, refused=_HAN_NOT_A_PLACE),
    Rule("lives_in", _z(rf"^我(?:已经)?(?:不再住在?|不住在?|以前住在|曾经住在){_HAN_PLACE}了?$"), ended=True, refused=_HAN_NOT_WHERE),
    Rule("works_at", _z(rf"^我{_HAN_NOW}在{_HAN_PLACE}(?:工作|上班|任职|就职){_HAN_TAIL}"), refused=_HAN_NOT_A_PLACE),
    Rule("works_at", _z(rf"^我(?:已经)?(?:不再在|不在|以前在|曾经在){_HAN_PLACE}(?:工作|上班)了?$"), ended=True, refused=_HAN_NOT_A_PLACE),
    Rule("job", _z(rf"^我{_HAN_NOW}(?:是|做|当)(?:一名|一个|一位|个|名)?(?P<value>[\u4e00-\u9fff]{{0,6}}?(?:{_HAN_JOBS}))了?$"), refused=re.compile("不|好|坏|的")),
    Rule("job", _z(r"^我(?:刚|已经|刚刚|最近)?(?:辞职|离职|被裁|失业)了?$"), 0.8, True, True, text="{subject}不再有以前的工作。"),
    Rule("name", _z(r"^(?:我叫|我的名字(?:是|叫)|我名叫)(?P<value>[\u4e00-\u9fff·]{2,6}|[A-Z][A-Za-z]*(?: [A-Z][A-Za-z]*)*)$"), 0.95, refused=re.compile("^(?:他|她|你|它|了|什么|不|外卖|车|人|的)")),
    Rule("age", _z(r"^我(?:今年|现在|已经|刚|刚满|才|满)*(?P<value>\d{1,3}|[一二三四五六七八九十]{1,4})(?:周?岁)了?$"), 0.95),
    Rule("birthday", _z(r"^我的?(?:生日|出生日期)是(?:在)?(?P<value>(?:\d{4}年)?(?:\d{1,2}|[一二三四五六七八九十]{1,3})月(?:\d{1,2}|[一二三四五六七八九十]{1,3})[日号])$"), 0.95),
    Rule("phone", _z(r"^我的?(?:新)?(?:电话|手机)(?:号码?)?(?:是|为|：|:)(?P<value>\+?\d[\d -]{5,18}\d)$"), 0.95),
    Rule("email", _z(r"^我的?(?:新)?(?:邮箱|电子邮件|邮件)(?:地址)?(?:是|为)(?P<value>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)$"), 0.95),
    Rule("from", _z(r"^我(?:是|来自)(?P<value>[\u4e00-\u9fff]{2,6}?)人$"), 0.8, refused=re.compile("个|男|女|好|坏|的|本地|外地|名|家|主|客|有|商|老|年轻|成年")),
    Rule("from", _z(r"^我来自(?P<value>[\u4e00-\u9fff]{2,8})$"), 0.9),
    Rule("born_in", _z(rf"^我(?:出生在|出生于|生于){_HAN_PLACE}$"), refused=re.compile(r"\d|[年月]")),
    Rule("grew_up_in", _z(rf"^我(?:从小)?在{_HAN_PLACE}长大(?:的)?$"), refused=_HAN_NOT_A_PLACE),
    Rule("studies_at", _z(rf"^我{_HAN_NOW}在(?P<value>[\u4e00-\u9fff]{{2,12}}(?:大学|学院|中学|高中|小学))(?:上学|读书|念书|学习)$")),
    Rule("relationship_status", _z(r"^我(?:现在|目前|是|已经|刚|还)*(?P<value>单身|已婚|未婚|离异)(?:的|了)?$")),
    Rule("relationship_status", _z(r"^我(?:已经|刚刚?|最近|上个?月|去年|昨天)*+(?P<value>结婚|离婚|订婚)了$"), text="{subject}{value}了。"),
    Rule("blood_type", _z(r"^我(?:的血型)?是(?P<value>(?:A|B|AB|O)型)血?$"), 0.9),
    Rule("health", _z(rf"^我(?:也|从小|一直)*(?:有|患有|得了|患)(?P<value>(?:[一二12]型)?(?:{_HAN_ILLNESS}))$")),
    Rule("language", _z(r"^我(?:也|还)?会(?:说|讲)(?P<value>(?:中文|英语|法语|德语|日语|韩语|西班牙语|俄语|意大利语|粤语|葡萄牙语|阿拉伯语)(?:[和、](?:中文|英语|法语|德语|日语|韩语|西班牙语|俄语|意大利语|粤语))*)$")),
    Rule("pet", _z(rf"^我(?:有|养了?|刚|最近|刚刚|领养了?|收养了?)++{_HAN_COUNT}(?:只|条|匹|个)(?P<what>[\u4e00-\u9fff]{{0,4}}?(?:{_HAN_PETS}))(?:的?名字)?叫(?:做)?(?P<name>[\u4e00-\u9fff]{{1,4}}|{_CAP})$"), 0.95, value="{name}（{what}）", text="{subject}有一只宠物：{value}。"),
    Rule("pet", _z(rf"^我的(?P<what>{_HAN_PETS})(?:的?名字)?(?:叫做?|是)(?P<name>[\u4e00-\u9fff]{{1,4}}|{_CAP})$"), 0.9, value="{name}（{what}）", text="{subject}有一只宠物：{value}。", refused=re.compile("的|了|病|很|公|母")),
    Rule("pet", _z(rf"^我(?:有|养了?|领养了?)(?P<value>{_HAN_COUNT}(?:只|条|匹)[\u4e00-\u9fff]{{0,4}}?(?:{_HAN_PETS}))$")),
    Rule("family", _z(rf"^我有(?P<value>{_HAN_COUNT}个(?:哥哥|姐姐|弟弟|妹妹|儿子|女儿|孩子|双胞胎))$")),
)  # fmt: skip

RULES: tuple[Rule, ...] = (
    *_ENGLISH,
    *(
        Rule(r.slot, r.pattern, r.confidence, True, r.ended, r.text, r.value, r.refused, r.goes_on)
        for r in _CHINESE
    ),
)
