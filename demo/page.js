// What the page does in the browser by itself.

// Gradio refuses files without a type, and browsers know none for the names that phones give: IMG_1.HEIC.
const typed = files => {
  const data = new DataTransfer();
  for (const file of files) {
    const photo = /\.(heic|heif|hif|avif|jp2)$/i.test(file.name);
    data.items.add(file.type || !photo ? file : new File([file], file.name, {type: 'image/heif'}));
  }
  return data.files;
};
addEventListener('change', event => {
  if (event.target.type === 'file') event.target.files = typed(event.target.files);
}, true);
addEventListener('drop', event => {
  const input = event.target.closest('.block')?.querySelector('input[type=file]');
  if (!input || [...event.dataTransfer.files].every(file => file.type)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  input.files = typed(event.dataTransfer.files);
  input.dispatchEvent(new Event('change'));
}, true);

// Brings what a button makes into view: on a phone it stands below the fields.
function showResult(id) {
  const box = document.getElementById(id).getBoundingClientRect();
  if (box.top < 0 || box.top > innerHeight / 2) {
    document.getElementById(id).scrollIntoView({ behavior: 'smooth', block: 'start' });
  }
}

// The clipboard is there for pages of this machine and of https only.
function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.body.appendChild(document.createElement('textarea'));
  area.value = text;
  area.select();
  document.execCommand('copy');
  area.remove();
}
