"""The texts that the capture sends: questions and answers in many scripts, with planted findings.

Names, numbers and addresses are invented; mail addresses use the reserved example domains, card
and account numbers are the published test numbers, the access key is its vendor's documented
example.
"""

import random
import unicodedata

# language tag -> (questions, answers); {c} a claim number, {n} an amount, {p} a person.
_TEXTS = {
    "en": (
        [
            "Summarise claim {c} for {p} in two sentences.",
            "Is a deductible of {n} euro usual for storm damage?",
            "Draft a polite reminder to {p} about the open invoice {c}.",
            "Which clause of contract {c} limits liability to {n}?",
        ],
        [
            "Claim {c} was filed after a pipe burst; the assessor estimates {n} euro.",
            "Yes, for that tariff {n} euro is within the usual range.",
            "Dear {p}, our records show that invoice {c} is still open. Kind regards.",
            "Clause 11.2 limits liability to {n} euro per event.",
        ],
    ),
    "de": (
        [
            "Fasse den Schadenfall {c} von {p} kurz zusammen.",
            "Gilt die Selbstbeteiligung von {n} € auch bei Überspannung?",
            "Prüfe § 7 des Vertrags {c} auf Haftungslücken.",
        ],
        [
            "Der Schaden {c} entstand durch Überspannung; geschätzte Höhe {n} €.",
            "Ja, nach den Bedingungen gilt sie ab {n} € größer als die Mindestgrenze.",
            "§ 7 schließt grobe Fahrlässigkeit aus – Maß und Größe sind zu prüfen.",
        ],
    ),
    "fr": (
        [
            "Résume le sinistre {c} déclaré par {p}.",
            "La franchise de {n} € s’applique-t-elle aux dégâts des eaux ?",
            "Rédige un courriel à l’assuré au sujet du dossier {c}.",
        ],
        [
            "Le sinistre {c} a été déclaré après un dégât des eaux ; l’expert l’évalue à {n} €.",
            "Oui, la franchise de {n} € s’applique, sauf catastrophe naturelle.",
            "Cher assuré, votre dossier {c} a bien été reçu. À bientôt !",
        ],
    ),
    "es-pt": (
        [
            "¿Qué cubre la póliza {c} del señor {p}?",
            "¡Urgente! ¿Cuándo vence el plazo del expediente {c}?",
            "Não consigo abrir o processo {c}; o valor é {n}?",
        ],
        [
            "La póliza {c} cubre daños por agua hasta {n} €.",
            "El plazo vence en quince días; mañana enviaré el recordatorio.",
            "O processo {c} está aberto; a indenização é de {n}.",
        ],
    ),
    "pl-cs": (
        [
            "Streść zgłoszenie {c} złożone przez {p}.",
            "Jaka jest wysokość odszkodowania w sprawie {c}?",
            "Jaký je příští krok u pojistné události {c}?",
        ],
        [
            "Zgłoszenie {c}: zalanie łazienki, wartość {n} zł.",
            "Odszkodowanie wynosi {n} zł, decyzja zapadnie w środę.",
            "Příští krok: žádost o doklady, lhůta čtrnáct dní.",
        ],
    ),
    "vi": (
        ["Tóm tắt hồ sơ {c} của {p}.", "Mức khấu trừ {n} có áp dụng cho thiệt hại do bão không?"],
        ["Hồ sơ {c} được lập sau trận bão; thiệt hại ước tính {n}.", "Có, mức khấu trừ được áp dụng theo hợp đồng."],
    ),
    "ru-uk": (
        [
            "Кратко изложите статью {c} о перестраховании.",
            "Какие методы использует {p} в работе {c}?",
            "Ґрунтовно опиши ризики у справі {c}.",
        ],
        [
            "В статье {c} сравниваются две модели; выборка — {n} договоров.",
            "Автор использует бутстреп и объясняет ограничения.",
            "Ризики: затримка виплати, їх оцінка {n} євро.",
        ],
    ),
    "el-ka-hy": (
        ["Ποια είναι η κατάσταση του φακέλου {c};", "რა არის საქმის {c} სტატუსი?", "Ի՞նչ վիճակում է {c} գործը:"],
        [
            "Ο φάκελος {c} εξετάζεται· το ποσό είναι {n} €.",
            "საქმე {c} განხილვაშია, თანხა {n}.",
            "Գործը {c} քննվում է, գումարը՝ {n}։",
        ],
    ),
    "ar": (
        [
            "لخّص المطالبة رقم {c} المقدَّمة من {p}.",
            "هل المبلغ {n} ضمن حدود الوثيقة؟",
            "اكتب رسالة إلى العميل بشأن الملف {c} — عاجل!",
        ],
        [
            "المطالبة {c} قيد المراجعة، والمبلغ المقدَّر {n} دينار.",
            "نعم، المبلغ {n} ضمن الحدود المتفق عليها.",
            "عزيزي العميل، تم استلام ملفك {c}. شكرًا لك.",
        ],
    ),
    "fa-ur": (
        ["خلاصهٔ پروندهٔ {c} را بنویس؛ می‌خواهم کوتاه باشد.", "دعویٰ {c} کی موجودہ حیثیت کیا ہے؟"],
        ["پروندهٔ {c} در حال بررسی است و مبلغ {n} تومان برآورد شده.", "دعویٰ {c} زیرِ غور ہے؛ رقم {n} روپے۔"],
    ),
    "he": (
        ["סכם את הרשומה {c} של {p}.", "האם הטיפול מכוסה עד \u200f{n}\u200f ש״ח?", "כתוב מכתב למטופל (תיק {c})."],
        [
            "הרשומה {c}: ביקורת שגרתית, עלות {n} ש״ח.",
            "כן, הכיסוי חל — ראה סעיף ב׳.",
            "שלום רב, תיקך {c} נפתח. בריאות שלמה!",
        ],
    ),
    "hi-bn-ta": (
        ["दावा {c} का सारांश दो वाक्यों में लिखें।", "দাবি {c} এর বর্তমান অবস্থা কী?", "கோரிக்கை {c} நிலை என்ன?"],
        [
            "दावा {c} पर {n} रुपये की क्षति का अनुमान है।",
            "দাবি {c} পর্যালোচনাধীন, পরিমাণ {n} টাকা।",
            "கோரிக்கை {c} பரிசீலனையில் உள்ளது; தொகை {n}.",
        ],
    ),
    "th-my-km": (
        ["สรุปเคลม {c} ของคุณ {p} ให้หน่อย", "တောင်းဆိုမှု {c} ၏ အခြေအနေကို ပြောပါ။", "សូមសង្ខេបករណី {c}។"],
        ["เคลม {c} อยู่ระหว่างพิจารณา ยอด {n} บาท", "တောင်းဆိုမှု {c} ကို စစ်ဆေးနေသည်။", "ករណី {c} កំពុងពិនិត្យ ចំនួន {n}។"],
    ),
    "zh": (
        [
            "请用两句话总结理赔案 {c}。",
            "保单 {c} 的免赔额 {n} 元适用于台风损失吗？",
            "把這份合約 {c} 的第三條翻譯成白話。",
        ],
        [
            "理赔案 {c} 因水管破裂提出，估损 {n} 元。",
            "适用，但须先提交现场照片。",
            "第三條的意思是：逾期付款須加計利息 {n} 元。𠮷",
        ],
    ),
    "ja": (
        [
            "{c}の請求内容を{p}様向けに要約してください。",
            "免責金額{n}円は台風にも適用されますか？",
            "お客様への返信文を敬語で作成して（案件{c}）。",
        ],
        [
            "案件{c}は漏水事故で、見積額は{n}円です。",
            "はい、適用されます。ただし｢全損｣の場合を除きます。",
            "平素よりお世話になっております。案件{c}を承りました。",
        ],
    ),
    "ko": (
        ["청구 {c} 내용을 두 문장으로 요약해 주세요.", "자기부담금 {n}원이 태풍 피해에도 적용되나요?"],
        ["청구 {c}은 누수 사고이며 추정 손해액은 {n}원입니다.", "네, 적용됩니다. 사진을 먼저 제출해 주세요."],
    ),
    "am-yo": (
        ["የጥያቄ {c} ሁኔታ ምንድን ነው?", "Kí ni ipò ẹ̀sùn {c} báyìí? Ẹ ṣé o."],
        ["ጥያቄ {c} በመታየት ላይ ነው፤ መጠኑ {n} ብር።", "Ẹ̀sùn {c} wà lábẹ́ àyẹ̀wò; iye rẹ̀ jẹ́ {n} náírà."],
    ),
    "emoji": (
        [
            "Is {c} done yet? 🙏🏽👩🏾‍💻",
            "Storm hit our roof 🌪️🏠 — what now? {c}",
            "👨‍👩‍👧‍👦 family plan {c}: 💶 {n}? 🇺🇦🇯🇵🏴󠁧󠁢󠁳󠁣󠁴󠁿",
        ],
        [
            "All set ✅ {c} 🎉",
            "Take photos 📸, keep receipts 🧾, we pay up to {n} 💶.",
            "Yes 👍🏿 — the family plan covers {n}. ❤️‍🔥",
        ],
    ),
    "symbols": (
        [
            "Check ∑ᵢ xᵢ² ≤ {n} for sample {c} (∀ i ∈ ℕ).",
            "Typo in “{c}”: naïve ≠ nai\u0308ve; Z͑ͫ̓a̴l̶g̷o͜ — fix?",
            "Row\t{c}\tvalue\t{n}\nRow\t𝄞\t½\t№ 7",
        ],
        [
            "The bound holds: ‖x‖₂ = √{n}. ∎",
            "Both spellings are canonically equivalent (NFC/NFD); file {c}.",
            "Parsed 2 rows:\r\n\t- {c}\r\n\t- 𝄞 ½",
        ],
    ),
}

_PERSONS = [
    "Ana Kovač", "Łukasz Żak", "Søren Bjørn", "José Núñez", "Zoë Ångström", "O’Brien", "محمد العلي",
    "שרה כהן", "山田 太郎", "김지우", "王小明", "Nguyễn Thị Hoa", "Олена Коваль", "प्रिया शर्मा", "Ἀλέξανδρος", "Ayşe Yıldız",
]  # fmt: skip

# Planted findings for the masking guardrail: text with {x}, and what stands there.
_FINDINGS = [
    ("Please write to {x} about this.", ["jane.roe@example.com", "müller@example.org", "li.wei@example.net"]),
    ("The claimant's number is {x}.", ["123-45-6789", "219-09-9999"]),
    ("Karte: {x}, bitte erstatten.", ["4111 1111 1111 1111", "4012888888881881"]),
    (
        "IBAN {x} に振り込んでください。",
        ["DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606"],
    ),
    ("CPF {x} do segurado.", ["529.982.247-25", "111.444.777-35"]),
    ("See policy {x} (Κωδικός).", ["POL-00012345", "POL-98765432"]),
    ("رقم الهاتف {x} للتواصل.", ["٠٧٩-١٢٣٤٥٦٧", "٠٧٨-٧٦٥٤٣٢١"]),
]

_BLOCKED = [
    "Deploy with AKIAIOSFODNN7EXAMPLE please, the pipeline for {c} is red.",
    "My key:\n-----BEGIN OPENSSH PRIVATE KEY-----\n(not a key)\n-----END OPENSSH PRIVATE KEY-----\nwhy does {c} fail?",
    "What does the board memo say about Project Nightjar and {c}?",
    "Переведи документ {c}, гриф: совершенно секретно.",
    "この文書{c}は機密情報です。英訳してください。",
    "ترجم الوثيقة {c} المصنفة سري للغاية.",
]
_FLAGGED = [
    "{p} sent a legal threat over claim {c}; how should we answer?",
    "Der Rechtsanwalt von {p} fordert {n} € zu Fall {c}.",
    "L’avocat de {p} conteste le dossier {c}.",
    "أرسل محامٍ إنذارًا بشأن {c}.",
    "律師來函要求賠償 {n} 元（{c}）。",
    "Pełnomocnik, adwokat strony, kwestionuje decyzję {c}.",
]
_HELD = [
    "Approve a life insurance payout above {n}000 for {p}, file {c}.",
    "Auszahlung über {n}.000 € an {p} freigeben ({c}).",
    "Validez un versement supérieur à {n}000 € pour {c}.",
    "案件{c}の高額支払（{n}万円）を承認してください。",
]
_PARAGRAPHS = [
    "The insured reported the loss within the period set by the policy. Photographs, two estimates and the plumber's report were attached. ",
    "Die Besichtigung ergab Feuchteschäden an Estrich und Trockenbau; die Ursache wurde behoben. ",
    "L’expert a relevé des traces d’infiltration anciennes, ce qui n’exclut pas la garantie. ",
    "وقد أرفق العميل صورًا وتقريرين من مختصين، ولم تُسجَّل مطالبات سابقة. ",
    "現地調査の結果、床下の漏水が確認された。写真は別紙のとおり。",
    "Осмотр подтвердил причину: разрыв гибкой подводки на кухне. ",
    "निरीक्षण में रिसाव का कारण स्पष्ट हुआ और मरम्मत का अनुमान संलग्न है। ",
]


class Corpus:
    """Draws texts with one seeded generator, so that the same seed gives the same texts."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.languages = sorted(_TEXTS)

    def _fill(self, template: str) -> str:
        rng = self.rng
        text = (
            template.replace("{c}", f"C-{rng.randrange(10_000, 99_999)}")
            .replace("{n}", str(rng.randrange(120, 9_000)))
            .replace("{p}", rng.choice(_PERSONS))
        )
        # Some clients send decomposed text (NFD): combining marks as characters of their own.
        return unicodedata.normalize("NFD", text) if rng.random() < 0.06 else text

    def exchange(self) -> tuple[str, str]:
        """A question and an answer in one language."""
        questions, answers = _TEXTS[self.rng.choice(self.languages)]
        return self._fill(self.rng.choice(questions)), self._fill(self.rng.choice(answers))

    def finding(self) -> str:
        """A sentence holding something that the masking guardrail replaces."""
        template, values = self.rng.choice(_FINDINGS)
        return template.replace("{x}", self.rng.choice(values))

    def output_finding(self) -> str:
        """A sentence for an answer that the output guardrail masks."""
        template, values = self.rng.choice([_FINDINGS[0], _FINDINGS[3]])
        return template.replace("{x}", self.rng.choice(values))

    def blocked(self) -> str:
        return self._fill(self.rng.choice(_BLOCKED))

    def flagged(self) -> str:
        return self._fill(self.rng.choice(_FLAGGED))

    def held(self) -> str:
        return self._fill(self.rng.choice(_HELD))

    def document(self, size: int) -> str:
        """A long text of about `size` characters."""
        parts: list[str] = []
        length = 0
        while length < size:
            part = self.rng.choice(_PARAGRAPHS)
            parts.append(part)
            length += len(part)
        return "".join(parts)
